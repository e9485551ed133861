// Chooses AVX-512 or AVX2 when this machine has it. CPU kernels only.
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

// Loops over vectors of 16, 8 or 4 floats: the same bits, for there is no fused multiply-add in them either.
template <auto kLoop, class... Args>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))) void with_avx512(Args... args) {
  kLoop(args...);
}
template <auto kLoop16, auto kLoop8, auto kLoop4, class... Args>
void run_widest_vectors(int most_floats, Args... args) {
  static const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  has_avx512&& most_floats >= 16 ? with_avx512<kLoop16>(args...)
  : has_avx2&& most_floats >= 8  ? with_avx2<kLoop8>(args...)
                                 : kLoop4(args...);
}
#else
template <auto kLoop16, auto kLoop8, auto kLoop4, class... Args>
void run_widest_vectors(int, Args... args) {
  kLoop4(args...);
}
template <auto kLoop, class... Args>
void run_widest(Args... args) {
  kLoop(args...);
}
#endif

}  // namespace satin::kernels
