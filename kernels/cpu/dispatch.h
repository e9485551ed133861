// Chooses AVX2 when this machine has it. CPU kernels only.
#pragma once
#include <utility>

#include "kernels/for_grid.h"

namespace satin::kernels {

#if defined(__x86_64__)
// Loop is always_inline, so that it is compiled once for each instruction set. AVX2 has no fused multiply-add: equal
// bits.
template <auto kLoop, class... Args>
__attribute__((target("avx2"))) void with_avx2(Args... args) {
  kLoop(args...);
}
template <auto kLoop, class... Args>
void run_widest(Args... args) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  has_avx2 ? with_avx2<kLoop>(args...) : kLoop(args...);
}
#else
template <auto kLoop, class... Args>
void run_widest(Args... args) {
  kLoop(args...);
}
#endif

}  // namespace satin::kernels
