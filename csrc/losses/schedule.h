// When a part of the objective is switched on, and how it then grows.
#pragma once
#include <algorithm>

namespace satin::losses {

/// The share of its full strength, 0 to 1, at `progress` = steps done / all steps: 0 before `start`, then growing
/// linearly over `ramp` (0: at once); both are fractions of training.
inline double share_at(double progress, double start, double ramp) {
  if (progress < start) return 0;
  return ramp > 0 ? std::min(1.0, (progress - start) / ramp) : 1;
}

}  // namespace satin::losses
