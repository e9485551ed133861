#include "eval/score.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "eval/in_batches.h"

namespace satin::eval {
namespace {

/// As many sequences a batch as fit, counting padding.
std::vector<Range> batches_of(const std::vector<std::vector<int32_t>>& sequences, int64_t batch_tokens) {
  std::vector<Range> batches;
  for (size_t first = 0; first < sequences.size();) {
    size_t last = first, longest = 0;
    while (last < sequences.size()) {
      const size_t length = std::max(longest, sequences[last].size());
      if (last > first && length * (last - first + 1) > static_cast<size_t>(batch_tokens)) break;
      longest = length;
      ++last;
    }
    batches.push_back({static_cast<int64_t>(first), static_cast<int64_t>(last - first)});
    first = last;
  }
  return batches;
}

/// Padded on the right: [number, longest] int64.
at::Tensor padded(const std::vector<std::vector<int32_t>>& sequences, Range range) {
  size_t longest = 0;
  for (int64_t b = 0; b < range.number; ++b) longest = std::max(longest, sequences[range.first + b].size());
  at::Tensor tokens = at::zeros({range.number, static_cast<int64_t>(longest)}, at::kLong);
  auto ids = tokens.accessor<int64_t, 2>();
  for (int64_t b = 0; b < range.number; ++b) {
    const auto& sequence = sequences[range.first + b];
    SATIN_CHECK(sequence.size() >= 2, "a sequence to score has ", sequence.size(), " tokens");
    for (size_t t = 0; t < sequence.size(); ++t) ids[b][static_cast<int64_t>(t)] = sequence[t];
  }
  return tokens;
}

}  // namespace

RowScores score_rows(models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& targets,
                     const ScoreOptions& options, int64_t num_tokens) {
  const int64_t num_rows = hidden.size(0);
  const int64_t num_candidates = num_tokens > 0 ? num_tokens : decoder.config().vocab_size;
  RowScores scores{at::empty({num_rows}, hidden.options().dtype(at::kFloat)), {}};
  if (options.argmax) scores.argmax = at::empty({num_rows}, targets.options());
  for (int64_t begin = 0; begin < num_rows; begin += options.chunk_tokens) {
    const int64_t end = std::min(num_rows, begin + options.chunk_tokens);
    const at::Tensor logits = decoder.logits(hidden.slice(0, begin, end));
    const at::Tensor target_logit = logits.gather(1, targets.slice(0, begin, end).unsqueeze(1)).squeeze(1);
    scores.log_prob.slice(0, begin, end).copy_(target_logit - logits.logsumexp(1));
    if (options.argmax) scores.argmax.slice(0, begin, end).copy_(logits.narrow(1, 0, num_candidates).argmax(1));
  }
  return scores;
}

std::pair<at::Tensor, at::Tensor> score_batch(models::Decoder& decoder, const at::Tensor& tokens,
                                              const ScoreOptions& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = tokens.to(decoder.parameters().options().device);
  const at::Tensor hidden = decoder.hidden(ids).slice(1, 0, -1);
  const at::Tensor targets = ids.slice(1, 1);
  const RowScores rows = score_rows(decoder, hidden.flatten(0, 1), targets.flatten(), options);
  const auto shape = targets.sizes();
  return {rows.log_prob.view(shape).cpu(), options.argmax ? (rows.argmax.view(shape) == targets).cpu() : at::Tensor()};
}

std::vector<Scores> score(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& sequences,
                          const ScoreOptions& options, dist::Communicator& ranks) {
  std::vector<Scores> result;
  result.reserve(sequences.size());
  const auto num_scored = [&](int64_t s) { return static_cast<int64_t>(sequences[s].size()) - 1; };
  // Of each sequence its log-probabilities, then its hits.
  const auto read = [&](Range range) {
    const auto [log_prob, hit] = score_batch(decoder, padded(sequences, range), options);
    Numbers numbers;
    for (int64_t b = 0; b < range.number; ++b) {
      const int64_t n = num_scored(range.first + b);
      const float* values = log_prob[b].const_data_ptr<float>();
      numbers.insert(numbers.end(), values, values + n);
      if (!hit.defined()) continue;
      const bool* hits = hit[b].const_data_ptr<bool>();
      numbers.insert(numbers.end(), hits, hits + n);
    }
    return numbers;
  };
  const auto add = [&](Range range, const Numbers& numbers) {
    auto at = numbers.begin();
    for (int64_t s = range.first; s < range.first + range.number; ++s) {
      Scores scores;
      for (int64_t t = 0; t < num_scored(s); ++t) scores.log_prob.push_back(static_cast<float>(*at++));
      if (options.argmax)
        for (int64_t t = 0; t < num_scored(s); ++t) scores.is_argmax.push_back(*at++ != 0);
      result.push_back(std::move(scores));
    }
  };
  in_batches(ranks, "scoring: sequence", batches_of(sequences, options.batch_tokens), read, add);
  return result;
}

}  // namespace satin::eval
