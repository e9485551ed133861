// Chooses the instantiation for a grid, and AVX2 when this machine has it. CPU kernels only.
#pragma once
#include <utility>

#include "kernels/fake_quant.h"

namespace satin::kernels {

/// body.template operator()<Grid>() for the grid's kind.
template <class Body>
void for_grid(Grid kind, const Body& body) {
  switch (kind) {
    case Grid::kSymmetric:
      return body.template operator()<Grid::kSymmetric>();
    case Grid::kAsymmetric:
      return body.template operator()<Grid::kAsymmetric>();
    case Grid::kSeq:
      return body.template operator()<Grid::kSeq>();
    case Grid::kTernary:
      return body.template operator()<Grid::kTernary>();
    case Grid::kBinary:
      return body.template operator()<Grid::kBinary>();
    case Grid::kBitNet:
      return body.template operator()<Grid::kBitNet>();
  }
}

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
