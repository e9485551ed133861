// The new token's heads as cached_attention.cu reads them, and what its warps and blocks found, as one.
#pragma once
#include "kernels/cuda/cached_tiles.cuh"

namespace satin::kernels {

/// Asks for up to kMost heads of 16-bit numbers of D features, then rotates and rounds them (rope.h); a warp together.
template <int kFeatures, bool kHalf, int kMost>
struct HeadsAhead {
  static constexpr int kPairs = kFeatures / 2, kEach = (kPairs + kLanes - 1) / kLanes;
  float cos[kEach], sin[kEach];
  uint16_t raw[kMost][kEach][2];

  static __device__ __forceinline__ bool has(int i, int lane) { return kPairs >= kLanes || i * kLanes + lane < kPairs; }
  __device__ __forceinline__ void load_angles(const float* cosines, const float* sines, int64_t position, int lane) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (has(i, lane)) {
        const int64_t at = position * kPairs + i * kLanes + lane;
        cos[i] = __ldg(cosines + at), sin[i] = __ldg(sines + at);
      }
  }
  __device__ __forceinline__ void load(int n, const uint16_t* from, int lane) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (has(i, lane))
#pragma unroll
        for (int half = 0; half < 2; ++half) raw[n][i][half] = __ldcg(from + half * kPairs + i * kLanes + lane);
  }
  __device__ __forceinline__ void store(int n, bool is_rotated, int lane, uint16_t* to) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (has(i, lane)) {
        const float a = number<kHalf>(raw[n][i][0]), b = number<kHalf>(raw[n][i][1]);
        // Not fused: the bits of rope.h.
        const float first = __fsub_rn(__fmul_rn(a, cos[i]), __fmul_rn(b, sin[i]));
        const float second = __fadd_rn(__fmul_rn(b, cos[i]), __fmul_rn(a, sin[i]));
        to[i * kLanes + lane] = is_rotated ? narrow<kHalf>(first) : raw[n][i][0];
        to[kPairs + i * kLanes + lane] = is_rotated ? narrow<kHalf>(second) : raw[n][i][1];
      }
  }
};

/// What a head's parts found, as one; a lane has two of its features.
struct Merged {
  float most = -INFINITY, total = 0, first = 0, second = 0;

  /// `most` is the largest of all parts, taken before.
  __device__ __forceinline__ void add(float unit, float2 base_and_total, float2 sum) {
    const float share = base_and_total.x == -INFINITY && base_and_total.y == 0
                            ? 0
                            : power_of_two(__fmul_rn(base_and_total.x - most, unit));
    total = fmaf(share, base_and_total.y, total);
    first = fmaf(share, sum.x, first);
    second = fmaf(share, sum.y, second);
  }
};

}  // namespace satin::kernels
