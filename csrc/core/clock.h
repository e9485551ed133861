// Time that only goes forward.
#pragma once
#include <chrono>

namespace satin {

/// Seconds since some moment: differences are what counts.
inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace satin
