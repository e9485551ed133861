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

/// Among a lane's words of a plane of two bits (packed_weight.h): of row g (kRow 0) or g + 8.
constexpr __host__ __device__ int word_of_two_bits(int row, int four) { return 2 * four + row; }

}  // namespace satin::kernels
