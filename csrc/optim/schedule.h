// Learning-rate schedules: a factor on every group's learning rate, a pure function of the step.
#pragma once
#include <cstdint>

#include "config/schema.h"

namespace satin::optim {

/// The factor in [0, 1] of step `step` (from 0) of `total_steps`.
///   warm-up, w = max(1, round(warmup_ratio * total_steps)) steps:  (step + 1) / w
///   then with t = (step - w) / max(1, total_steps - w), clamped to 1, and m = min_learning_rate_ratio:
///   cosine  m + (1 - m) (1 + cos(pi t)) / 2      linear  m + (1 - m) (1 - t)      constant  1
/// Halves round to even. Errors: UserError for another schedule name.
/// Source: Loshchilov and Hutter 2017 (SGDR), eq. 5, with one period.
double learning_rate_multiplier(int64_t step, int64_t total_steps, const config::Optimizer& options);

}  // namespace satin::optim
