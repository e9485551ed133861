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
  if (!config.quantization || config.quantization->hardening.empty()) return;
  const auto& stages = config.quantization->hardening;
  if (stages.back().until * static_cast<double>(steps) > static_cast<double>(steps - 1))
    throw UserError(cat("quantization.hardening: the last stage, until ", stages.back().until,
                        ", leaves none of the run's ", steps, " steps to the rules' own bits; end it earlier"));
  const double first_ends = stages.front().until * static_cast<double>(steps);
  if (first_ends <= static_cast<double>(config.quantization->fake_quant_after_n_steps))
    throw UserError(cat("quantization.hardening: the first stage ends at step ", first_ends,
                        ", before fake_quant_after_n_steps (", config.quantization->fake_quant_after_n_steps,
                        ") lets quantization begin"));
}

}  // namespace satin::train
