#include "train/run_length.h"

#include <algorithm>

#include "core/error.h"

namespace satin::train {

int64_t total_steps(const config::Train& train) {
  if (train.max_steps > 0) return train.max_steps;
  const int64_t tokens_per_step = train.micro_batch_size * train.gradient_accumulation_steps * train.sequence_length;
  return std::max<int64_t>(1, (train.max_tokens + tokens_per_step / 2) / tokens_per_step);
}

void check_schedule(const config::Config& config) {
  const int64_t steps = total_steps(config.train);
  if (config.quantization && config.quantization->fake_quant_after_n_steps >= steps)
    throw UserError(cat("quantization.fake_quant_after_n_steps: expected fewer than the run's ", steps,
                        " steps, found ", config.quantization->fake_quant_after_n_steps,
                        ": nothing would be quantized in training"));
}

}  // namespace satin::train
