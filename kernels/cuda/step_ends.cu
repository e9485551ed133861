// The likeliest token: a cluster of blocks a row, each a part of it.
//
// A row of 128,256 floats lies in the L2; one multiprocessor takes 4.6 us to read it at 64 bytes a cycle, eight take
// .6, and 2 us more are the launch, the first answer and the cluster.
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/step_ends.h"

namespace satin::kernels {
namespace {

constexpr int kThreads = 1024, kBlocks = 8, kAtOnce = 4, kWarps = kThreads / 32;

/// Larger for a larger number, and of equal ones for the first; a NaN's is the largest.
__device__ __forceinline__ uint64_t rank_of(float x, uint32_t column) {
  const uint32_t bits = __float_as_uint(x + 0.f);  // -0 is 0
  const uint32_t ordered = x != x ? ~0u : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | ~column;
}

__device__ __forceinline__ uint64_t largest_of_warp(uint64_t rank) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) rank = max(rank, __shfl_xor_sync(~0u, rank, offset));
  return rank;
}

/// kVector: floats of a load.
template <int kVector>
__global__ void __launch_bounds__(kThreads) most_likely_kernel(const MostLikely call) {
  let_dependents_start();
  const int block = block_of_cluster();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const auto columns = static_cast<uint32_t>(call.num_columns);
  const int64_t row = blockIdx.y;
  const float* const logits = call.logits + row * call.stride;
  wait_for_dependencies();

  uint64_t largest = 0;
  constexpr uint32_t kStep = kBlocks * kThreads * kVector;
  for (auto first = static_cast<uint32_t>((block * kThreads + thread) * kVector); first < columns;
       first += kAtOnce * kStep) {
    float x[kAtOnce][kVector];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const uint32_t column = first + i * kStep;
      if (column >= columns) break;
      if constexpr (kVector == 4)
        *reinterpret_cast<float4*>(x[i]) = __ldcg(reinterpret_cast<const float4*>(logits + column));
      else
        x[i][0] = __ldcg(logits + column);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const uint32_t column = first + i * kStep;
      if (column >= columns) break;
#pragma unroll
      for (int v = 0; v < kVector; ++v) largest = max(largest, rank_of(x[i][v], column + v));
    }
  }

  __shared__ __align__(16) uint64_t of_warps[kWarps];
  __shared__ __align__(16) uint64_t of_block[2];  // the second for the size that load_of_block takes
  largest = largest_of_warp(largest);
  if (lane == 0) of_warps[warp] = largest;
  __syncthreads();
  if (warp == 0) {
    largest = largest_of_warp(of_warps[lane]);
    if (lane == 0) of_block[0] = largest;
  }
  cluster_barrier();
  if (block == 0 && warp == 0) {
    const float4 of = load_of_block(shared_address(of_block), lane % kBlocks);
    largest = largest_of_warp(uint64_t{__float_as_uint(of.y)} << 32 | __float_as_uint(of.x));
    if (lane == 0) call.ids[row] = ~static_cast<uint32_t>(largest);
  }
  cluster_barrier();  // no block ends while it is read
}

}  // namespace

void most_likely_cuda(const MostLikely& call, CUstream_st* stream) {
  constexpr int64_t kMostColumns = (int64_t{1} << 31) - (int64_t{1} << 16), kMostRows = 65535;
  if (call.num_columns < 1 || call.num_columns > kMostColumns || call.num_rows > kMostRows)
    throw std::invalid_argument("most_likely: expected up to 65535 rows of 1 to 2147418112 logits, found " +
                                std::to_string(call.num_rows) + " of " + std::to_string(call.num_columns));
  if (call.num_rows == 0) return;
  const bool in_vectors =
      reinterpret_cast<uintptr_t>(call.logits) % 16 == 0 && call.stride % 4 == 0 && call.num_columns % 4 == 0;
  launch_early(
      "most_likely", in_vectors ? most_likely_kernel<4> : most_likely_kernel<1>,
      {.blocks = kBlocks, .threads = kThreads, .blocks_y = static_cast<unsigned>(call.num_rows), .cluster = kBlocks},
      stream, call);
}

}  // namespace satin::kernels
