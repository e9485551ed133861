// Levels and exact quotients of many weights by one scale, without a division for each.
#pragma once
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {

/// Levels of weights without a division for each: a product with the reciprocal is within a few units in the last place
/// of the quotient, so it gives the same level unless it is that near to where levels change. `doubt` then becomes
/// true, and the caller divides. (Two in a million weights at 2 bits; a division for each would take as long as the
/// memory.)
template <Grid kGrid>
struct QuickLevels {
  float reciprocal, sure;  ///< a distance from an integer up to which its rounding is the quotient's
  bool plain;              ///< a is too small or large for the reciprocal

  __device__ __forceinline__ QuickLevels(const FakeQuantGrid& grid, float a) : plain(!(a > 1e-18f && a < 1e18f)) {
#if defined(__CUDA_ARCH__)
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(a));
#else
    reciprocal = 1.0f / a;
#endif
    sure = 0.5f - static_cast<float>(1 << grid.bits) * 4.76837158203125e-07f;  // 2^(bits - 21), for |u| < 2^bits
  }

  __device__ __forceinline__ float operator()(const Group<kGrid, float>& group, float w, bool& doubt) const {
    const float u = w * reciprocal;
    if constexpr (kHasSigns<kGrid>) {
      doubt |= fabsf(u) < 1e-30f;  // a quotient that underflows has no sign
      return group.level(u);
    } else {
      const float x = group.before_rounding(u), rounded = round_half_even(x);
      doubt |= fabsf(x - rounded) > sure;
      return group.after_rounding(rounded);
    }
  }

  /// round(w / a) on the levels and one more at either end, exact. In bf16 one weight in 400 is as near to a border as
  /// a product can resolve: one quotient is computed then, not a vector's.
  __device__ __forceinline__ float rounded(const Group<kGrid, float>& group, float w) const {
    const float x = clamp(w * reciprocal, group.low - 1, group.high + 1), quick = round_half_even(x);
    if (!(plain | (fabsf(x - quick) > sure))) return quick;
    return round_half_even(clamp(w / group.a, group.low - 1, group.high + 1));
  }
};

/// The levels of V weights.
template <Grid kGrid, class C, class W, int V>
struct LevelsOf {
  const Group<kGrid, C>& group;
  __device__ LevelsOf(const FakeQuantGrid&, const Group<kGrid, C>& group) : group(group) {}
  __device__ void operator()(const Pack<W, V>& ws, C* levels) const {
    for (int j = 0; j < V; ++j) levels[j] = group.level(load_as<C>(ws.values[j]) / group.a);
  }
};
template <Grid kGrid, class W, int V>
struct LevelsOf<kGrid, float, W, V> {
  const Group<kGrid, float>& group;
  QuickLevels<kGrid> quick;
  __device__ __forceinline__ LevelsOf(const FakeQuantGrid& grid, const Group<kGrid, float>& group)
      : group(group), quick(grid, group.a) {}
  __device__ __forceinline__ void operator()(const Pack<W, V>& ws, float* levels) const {
    bool doubt = quick.plain;
#pragma unroll
    for (int j = 0; j < V; ++j) levels[j] = quick(group, load_as<float>(ws.values[j]), doubt);
    if (!doubt) return;
#pragma unroll
    for (int j = 0; j < V; ++j) levels[j] = group.level(load_as<float>(ws.values[j]) / group.a);
  }
};

template <class C>
struct PlainDivider {
  C a;
  __device__ explicit PlainDivider(C a) : a(a) {}
  __device__ C operator()(C w) const { return w / a; }
};
/// The correctly rounded quotients of many weights by one number.
template <class C>
struct Divider : PlainDivider<C> {
  using PlainDivider<C>::PlainDivider;
};
template <>
struct Divider<float> {
  float a, reciprocal;
  bool plain;  ///< a is so large or small that the products below could overflow or lose bits

  __device__ __forceinline__ explicit Divider(float a)
      : a(a), reciprocal(1.0f / a), plain(!(a > 1e-18f && a < 1e18f)) {}

  /// Two Newton steps with exact remainders from a reciprocal that is rounded correctly give the correctly rounded
  /// quotient (Markstein 1990, theorem 5: the first makes it faithful, the second correct), without the branch of a
  /// plain division. Beyond every level a few units in the last place are as good, and infinity stays infinity.
  __device__ __forceinline__ float operator()(float w) const {
    if (plain) return w / a;
    const float estimate = w * reciprocal;
    const float faithful = fmaf(fmaf(-estimate, a, w), reciprocal, estimate);
    const float exact = fmaf(fmaf(-faithful, a, w), reciprocal, faithful);
    return fabsf(estimate) < 4096.0f ? exact : estimate;
  }
};

}  // namespace satin::kernels
