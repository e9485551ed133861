// Shifts of packed words by constants of either sign.
#pragma once
#include "kernels/cuda/ptx.cuh"

namespace satin::kernels {

template <int kShift>
__device__ __forceinline__ uint32_t shifted_right(uint32_t x) {
  if constexpr (kShift >= 0)
    return x >> kShift;
  else
    return x << -kShift;
}

}  // namespace satin::kernels
