#include "eval/score.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/interrupt.h"

namespace satin::eval {
namespace {

/// Scores of one padded batch [B, T]: log-probabilities and argmax hits [B, T - 1] on the CPU.
std::pair<at::Tensor, at::Tensor> score_batch(models::Decoder& decoder, const at::Tensor& tokens,
                                              const ScoreOptions& options) {
  const at::Tensor hidden = decoder.hidden(tokens).slice(1, 0, -1);
  const at::Tensor targets = tokens.slice(1, 1);
  const RowScores rows = score_rows(decoder, hidden.flatten(0, 1), targets.flatten(), options);
  const auto shape = targets.sizes();
  return {rows.log_prob.view(shape).cpu(), options.argmax ? (rows.argmax.view(shape) == targets).cpu() : at::Tensor()};
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

std::vector<Scores> score(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& sequences,
                          const ScoreOptions& options) {
  at::NoGradGuard no_grad;
  const at::Device device = decoder.parameters().options().device;
  std::vector<Scores> result;
  result.reserve(sequences.size());
  for (size_t first = 0; first < sequences.size();) {
    // As many sequences as fit, counting padding.
    size_t last = first, longest = 0;
    while (last < sequences.size()) {
      const size_t length = std::max(longest, sequences[last].size());
      if (last > first && length * (last - first + 1) > static_cast<size_t>(options.batch_tokens)) break;
      longest = length;
      ++last;
    }
    const auto batch_size = static_cast<int64_t>(last - first);
    at::Tensor tokens = at::zeros({batch_size, static_cast<int64_t>(longest)}, at::kLong);
    auto ids = tokens.accessor<int64_t, 2>();
    for (int64_t b = 0; b < batch_size; ++b) {
      const auto& sequence = sequences[first + b];
      SATIN_CHECK(sequence.size() >= 2, "a sequence to score has ", sequence.size(), " tokens");
      for (size_t t = 0; t < sequence.size(); ++t) ids[b][static_cast<int64_t>(t)] = sequence[t];
    }
    const auto [log_prob, hit] = score_batch(decoder, tokens.to(device), options);
    for (int64_t b = 0; b < batch_size; ++b) {
      const auto num_scored = static_cast<int64_t>(sequences[first + b].size()) - 1;
      const float* values = log_prob[b].const_data_ptr<float>();
      Scores scores{{values, values + num_scored}, {}};
      if (hit.defined()) {
        const bool* hits = hit[b].const_data_ptr<bool>();
        scores.is_argmax.assign(hits, hits + num_scored);
      }
      result.push_back(std::move(scores));
    }
    if (interrupt_signal()) throw InterruptedError("stopped by a signal during evaluation; nothing to save");
    first = last;
  }
  return result;
}

}  // namespace satin::eval
