#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "eval/tasks.h"

namespace satin::eval {

double Perplexity::perplexity() const { return std::exp(nll); }

Perplexity perplexity(models::Decoder& decoder, const std::vector<int32_t>& tokens, int64_t sequence_length,
                      int64_t limit, const ScoreOptions& options) {
  if (tokens.size() < 2) throw UserError(cat("perplexity needs at least 2 tokens, the text has ", tokens.size()));
  if (sequence_length < 2) throw UserError(cat("--sequence-length: expected at least 2, found ", sequence_length));
  const auto num_tokens = static_cast<int64_t>(tokens.size());
  Perplexity result{0, 0, 0, sequence_length, num_tokens < sequence_length};
  const int64_t length = std::min(sequence_length, num_tokens);
  int64_t num_windows = num_tokens / length;
  if (limit > 0) num_windows = std::min(num_windows, limit);

  double sum = 0;
  const int64_t windows_at_once = std::max<int64_t>(1, options.batch_tokens / length);
  for (int64_t first = 0; first < num_windows; first += windows_at_once) {
    std::vector<std::vector<int32_t>> windows;
    for (int64_t w = first; w < std::min(num_windows, first + windows_at_once); ++w)
      windows.emplace_back(tokens.begin() + w * length, tokens.begin() + (w + 1) * length);
    for (const Scores& scores : score(decoder, windows, options))
      for (float log_prob : scores.log_prob) sum -= log_prob;
    progress(cat("perplexity: window ", std::min(num_windows, first + windows_at_once), " of ", num_windows));
  }
  end_progress();
  result.num_windows = num_windows;
  result.num_predictions = num_windows * (length - 1);
  result.nll = sum / static_cast<double>(result.num_predictions);
  return result;
}

}  // namespace satin::eval
