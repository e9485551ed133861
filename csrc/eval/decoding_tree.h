// How many continuations of a context are any good: the tree whose branches are a model's effective candidates (section
// "Effective candidates" of arXiv 2605.08894; threshold and estimator are ours).
//
// Knuth's estimator (Estimating the efficiency of backtrack programs, 1975): walk one random path; with b_i effective
// candidates at its i-th node, the product b_0 ... b_{d-1} is an unbiased estimate of N_d, the number of nodes at depth
// d. A candidate is effective when it is among the model's k best and the teacher gives it probability >= theta; the
// next node is drawn uniformly from them. The same draws walk every model's tree.
#pragma once
#include <array>

#include "dist/communicator.h"
#include "eval/windows.h"
#include "models/decoder.h"

namespace satin::eval {

struct TreeOptions {
  int64_t num_roots = 256;
  double theta = 1e-2;
  int64_t top_k = 40;
  int64_t num_tokens = 0;  ///< candidates: ids below (the vocabulary without padding)
  int64_t batch_tokens = 8192;
  uint64_t seed = 0;
};

inline constexpr int kTreeDepth = 8;

/// b_0, b_1, ... along one path; 0 from where it ended.
using Branches = std::array<int64_t, kTreeDepth>;

/// The contexts to start from: root r is `length` consecutive tokens of the text from starts[r], drawn uniformly.
struct TreeRoots {
  int64_t length;
  std::vector<int64_t> starts;  ///< index into Windows::tokens
};
/// Roots are half a window long (rounded up).
TreeRoots draw_roots(const Windows& windows, const TreeOptions& options);

/// The random bits of a step: it goes to the (hash * b >> 64)-th of the b effective candidates, best first.
uint64_t tree_draw(uint64_t seed, int64_t root, int depth);

/// One path from every root through the tree of `model` as `teacher` judges it (both may be one). Several ranks share
/// the roots, and each gets all paths.
std::vector<Branches> walk_tree(models::Decoder& model, models::Decoder& teacher, const Windows& windows,
                                const TreeRoots& roots, const TreeOptions& options,
                                dist::Communicator& ranks = *dist::Communicator::alone());

struct TreeSize {
  double mean;        ///< of N_d
  double mean_log1p;  ///< of ln(1 + N_d)
};
TreeSize tree_size(const std::vector<Branches>& paths, int depth);

}  // namespace satin::eval
