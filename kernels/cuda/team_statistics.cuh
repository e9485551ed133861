// Statistics of a group over the threads that own it.
#pragma once
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {

/// The team's statistics (low, high, sum, add()), in all its lanes. Called by every thread of the block.
template <class Statistics>
__device__ Statistics team_statistics(Statistics value, int team) {
  const int width = team < kWarp ? team : kWarp;
  for (int offset = width / 2; offset > 0; offset /= 2) {
    Statistics other;
    other.low = __shfl_xor_sync(0xffffffffu, value.low, offset);
    other.high = __shfl_xor_sync(0xffffffffu, value.high, offset);
    other.sum = __shfl_xor_sync(0xffffffffu, value.sum, offset);
    value.add(other);
  }
  if (team <= kWarp) return value;
  alignas(Statistics) __shared__ unsigned char storage[sizeof(Statistics) * (kThreads / kWarp)];
  auto* parts = reinterpret_cast<Statistics*>(storage);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();  // an earlier call's statistics have been read
  if (threadIdx.x % kWarp == 0) parts[warp] = value;
  __syncthreads();
  Statistics all = parts[0];
  for (int i = 1; i < kThreads / kWarp; ++i) all.add(parts[i]);
  return all;
}

}  // namespace satin::kernels
