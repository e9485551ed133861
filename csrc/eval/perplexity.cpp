#include <ATen/ATen.h>

#include <cmath>

#include "eval/in_batches.h"
#include "eval/tasks.h"
#include "eval/windows.h"

namespace satin::eval {

double Perplexity::perplexity() const { return std::exp(nll); }

Perplexity perplexity(models::Decoder& decoder, const std::vector<int32_t>& tokens, int64_t sequence_length,
                      int64_t limit, const ScoreOptions& options, dist::Communicator& ranks) {
  const Windows windows = cut_windows("perplexity", tokens, sequence_length, limit);
  const auto sums_of_windows = [&](Range range) {
    const at::Tensor log_prob = score_batch(decoder, windows.batch(range.first, range.number), options).first;
    Numbers sums(range.number, 0.0);
    for (int64_t w = 0; w < range.number; ++w) {
      const float* values = log_prob[w].const_data_ptr<float>();
      for (int64_t t = 0; t < log_prob.size(1); ++t) sums[w] -= values[t];
    }
    return sums;
  };
  double sum = 0;
  in_batches(ranks, "perplexity: window", even_batches(windows.count, options.batch_tokens / windows.length),
             sums_of_windows, [&](Range, const Numbers& sums) {
               for (const double of_window : sums) sum += of_window;
             });
  const int64_t num_predictions = windows.count * (windows.length - 1);
  return {sum / static_cast<double>(num_predictions), num_predictions, windows.count, sequence_length,
          windows.is_short()};
}

}  // namespace satin::eval
