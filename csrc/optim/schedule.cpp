#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/nearest.h"

namespace satin::optim {

double learning_rate_multiplier(int64_t step, int64_t total_steps, const config::Optimizer& options) {
  const std::string& schedule = options.schedule;
  if (schedule != "cosine" && schedule != "linear" && schedule != "constant")
    throw UserError(cat("optimizer.schedule: expected cosine, linear or constant, found \"", schedule, "\"",
                        did_you_mean(schedule, {"cosine", "linear", "constant"})));
  const double rounded = std::nearbyint(options.warmup_ratio * static_cast<double>(total_steps));
  const int64_t warmup_steps = std::max<int64_t>(1, static_cast<int64_t>(rounded));
  if (step < warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  if (schedule == "constant") return 1;
  const double t = std::min(1.0, static_cast<double>(step - warmup_steps) /
                                     static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps)));
  const double decay = schedule == "cosine" ? 0.5 * (1 + std::cos(std::numbers::pi * t)) : 1 - t;
  return options.min_learning_rate_ratio + (1 - options.min_learning_rate_ratio) * decay;
}

}  // namespace satin::optim
