#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "eval/tasks.h"
#include "eval/windows.h"

namespace satin::eval {

double Perplexity::perplexity() const { return std::exp(nll); }

Perplexity perplexity(models::Decoder& decoder, const std::vector<int32_t>& tokens, int64_t sequence_length,
                      int64_t limit, const ScoreOptions& options) {
  const Windows windows = cut_windows("perplexity", tokens, sequence_length, limit);
  double sum = 0;
  const int64_t at_once = std::max<int64_t>(1, options.batch_tokens / windows.length);
  for (int64_t first = 0; first < windows.count; first += at_once) {
    const int64_t last = std::min(windows.count, first + at_once);
    std::vector<std::vector<int32_t>> sequences;
    for (int64_t w = first; w < last; ++w)
      sequences.emplace_back(windows.tokens.begin() + w * windows.length,
                             windows.tokens.begin() + (w + 1) * windows.length);
    for (const Scores& scores : score(decoder, sequences, options))
      for (float log_prob : scores.log_prob) sum -= log_prob;
    progress(cat("perplexity: window ", last, " of ", windows.count));
  }
  end_progress();
  const int64_t num_predictions = windows.count * (windows.length - 1);
  return {sum / static_cast<double>(num_predictions), num_predictions, windows.count, sequence_length,
          windows.is_short()};
}

}  // namespace satin::eval
