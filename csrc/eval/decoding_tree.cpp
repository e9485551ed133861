#include "eval/decoding_tree.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "eval/candidates.h"
#include "eval/in_batches.h"
#include "ops/device.h"

namespace satin::eval {
namespace {

// Streams of counter_hash: independent numbers for the two questions asked.
constexpr uint64_t kRootStart = 0x64656367747265, kChild = kRootStart + 1;

constexpr int64_t kMostRoots = 256;  // at once: so many rows of logits

/// A model that reads a batch of contexts token by token.
class Reader {
 public:
  explicit Reader(models::Decoder& decoder) : decoder_(decoder) {}
  /// tokens [B, t], appended -> logits after the last one [B, V].
  at::Tensor read(const at::Tensor& tokens) {
    const at::Tensor hidden = decoder_.hidden(tokens, {.cache = &cache_});
    return decoder_.logits(hidden.select(1, hidden.size(1) - 1));
  }

 private:
  models::Decoder& decoder_;
  models::KvCache cache_;
};

at::Tensor contexts(const Windows& windows, const TreeRoots& roots, int64_t first, int64_t number) {
  at::Tensor ids = at::empty({number, roots.length}, at::kLong);
  for (int64_t r = 0; r < number; ++r)
    std::copy_n(windows.tokens.begin() + roots.starts[first + r], roots.length,
                ids.data_ptr<int64_t>() + r * roots.length);
  return ids;
}

}  // namespace

TreeRoots draw_roots(const Windows& windows, const TreeOptions& options) {
  TreeRoots roots{(windows.length + 1) / 2, {}};
  const uint64_t num_starts = windows.tokens.size() - roots.length + 1;
  for (int64_t r = 0; r < options.num_roots; ++r)
    roots.starts.push_back(
        static_cast<int64_t>(to_index(counter_hash({kRootStart, options.seed, static_cast<uint64_t>(r)}), num_starts)));
  return roots;
}

uint64_t tree_draw(uint64_t seed, int64_t root, int depth) {
  return counter_hash({kChild, seed, static_cast<uint64_t>(root), static_cast<uint64_t>(depth)});
}

std::vector<Branches> walk_tree(models::Decoder& model, models::Decoder& teacher, const Windows& windows,
                                const TreeRoots& roots, const TreeOptions& options, dist::Communicator& ranks) {
  const at::NoGradGuard no_grad;
  const ops::RepeatableDecoding repeatable;  // a threshold on probabilities sees the last bit
  const auto num_roots = static_cast<int64_t>(roots.starts.size());
  const int64_t at_once = std::clamp<int64_t>(options.batch_tokens / roots.length, 1, kMostRoots);
  const auto walk = [&](Range range) {
    const auto [first, number] = range;
    std::vector<Branches> paths(number, Branches{});
    Reader proposes(model), judges(teacher);
    at::Tensor tokens = contexts(windows, roots, first, number);
    for (int depth = 0; depth < kTreeDepth; ++depth) {
      const at::Tensor teacher_logits = judges.read(tokens);
      const at::Tensor logits = &model == &teacher ? teacher_logits : proposes.read(tokens);
      const Candidates proposed = candidates(logits, teacher_logits.log_softmax(1), options.num_tokens, options.top_k);
      const at::Tensor ids = proposed.ids.cpu(), good = effective(proposed, options.theta).cpu();
      tokens = at::zeros({number, 1}, at::kLong);  // a path that has ended reads on, but nobody looks
      for (int64_t r = 0; r < number; ++r) {
        if (depth > 0 && paths[r][depth - 1] == 0) continue;
        const at::Tensor children = ids[r].masked_select(good[r]);
        const int64_t num_children = children.size(0);
        paths[r][depth] = num_children;
        if (num_children > 0)
          tokens[r][0] = children[static_cast<int64_t>(
              to_index(tree_draw(options.seed, first + r, depth), static_cast<uint64_t>(num_children)))];
      }
    }
    Numbers numbers;
    for (const Branches& branches : paths) numbers.insert(numbers.end(), branches.begin(), branches.end());
    return numbers;
  };
  std::vector<Branches> paths(num_roots, Branches{});
  in_batches(ranks, "decoding trees: root", even_batches(num_roots, at_once), walk,
             [&](Range range, const Numbers& numbers) {
               for (size_t i = 0; i < numbers.size(); ++i)
                 paths[range.first + i / kTreeDepth][i % kTreeDepth] = static_cast<int64_t>(numbers[i]);
             });
  return paths;
}

TreeSize tree_size(const std::vector<Branches>& paths, int depth) {
  SATIN_CHECK(!paths.empty() && depth >= 1 && depth <= kTreeDepth, paths.size(), " paths, depth ", depth);
  TreeSize size{0, 0};
  for (const Branches& branches : paths) {
    double nodes = 1;
    for (int d = 0; d < depth; ++d) nodes *= static_cast<double>(branches[d]);
    size.mean += nodes;
    size.mean_log1p += std::log1p(nodes);
  }
  size.mean /= static_cast<double>(paths.size());
  size.mean_log1p /= static_cast<double>(paths.size());
  return size;
}

}  // namespace satin::eval
