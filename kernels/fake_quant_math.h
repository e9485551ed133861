// One group's arithmetic, shared by the CPU and CUDA kernels so that both give the same bits. See fake_quant.h.
// Everything is branch-free per weight, so that compilers vectorise the loops over a group.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/fake_quant.h"

#if defined(__CUDACC__)
#define SATIN_INLINE __host__ __device__ __forceinline__
#else
#define SATIN_INLINE inline __attribute__((always_inline))
#endif

namespace satin::kernels {

SATIN_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}
SATIN_INLINE float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

/// Nearest bfloat16, ties to even.
SATIN_INLINE float round_bfloat16(float x) {
#if defined(__CUDA_ARCH__)
  asm("{.reg .b16 h, zero; mov.b16 zero, 0; cvt.rn.bf16.f32 h, %0; mov.b32 %0, {zero, h};}" : "+f"(x));
  return x;
#else
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  return x != x ? x : float_of(rounded);
#endif
}

/// Nearest fp16, ties to even, subnormals and overflow to infinity included.
SATIN_INLINE float round_float16(float x) {
#if defined(__CUDA_ARCH__)
  asm("{.reg .b16 h; cvt.rn.f16.f32 h, %0; cvt.f32.f16 %0, h;}" : "+f"(x));
  return x;
#else
  const uint32_t sign = bits_of(x) & 0x80000000u, magnitude = bits_of(x) & 0x7fffffffu;
  const float size = float_of(magnitude);
  const float normal = float_of((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) & 0xffffe000u);
  const float subnormal = (size + 0.75f) - 0.75f;  // floats in [.5, 1) are spaced 2^-24, as fp16 subnormals are
  float rounded = size < 6.103515625e-05f ? subnormal : normal;
  rounded = size >= 65520.0f ? float_of(0x7f800000u) : rounded;
  return x != x ? x : float_of(bits_of(rounded) | sign);
#endif
}

SATIN_INLINE float round_to(Rounding rounding, float x) {
  return rounding == Rounding::kBFloat16 ? round_bfloat16(x) : rounding == Rounding::kFloat16 ? round_float16(x) : x;
}
SATIN_INLINE double round_to(Rounding rounding, double x) {
  return rounding == Rounding::kNone ? x : static_cast<double>(round_to(rounding, static_cast<float>(x)));
}

/// NaN stays NaN.
template <class T>
SATIN_INLINE T clamp(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

#if defined(__CUDA_ARCH__)
/// The same in two instructions.
__device__ __forceinline__ float clamp(float x, float low, float high) {
  asm("max.NaN.f32 %0, %0, %1;\n\tmin.NaN.f32 %0, %0, %2;" : "+f"(x) : "f"(low), "f"(high));
  return x;
}
#endif

/// Half to even, for |x| < 2^22; never -0. (Adding a number whose spacing is 1 rounds; SSE2 has no rounding
/// instruction.)
SATIN_INLINE float round_half_even(float x) { return (x + 12582912.0f) - 12582912.0f; }
SATIN_INLINE double round_half_even(double x) { return (x + 6755399441055744.0) - 6755399441055744.0; }

/// What level * unit * a is made of.
template <Grid kGrid, class T>
SATIN_INLINE constexpr T unit() {
  return kGrid == Grid::kSeq ? T(0.25) : kGrid == Grid::kTernary ? T(2.0 / 3.0) : T(1);
}

/// The scale as a file holds it.
template <Grid kGrid, class T>
SATIN_INLINE T stored_scale(Rounding rounding, T scale) {
  const T floor = rounding == Rounding::kFloat16 ? T(6.103515625e-05) : T(1e-5);
  const T largest = rounding == Rounding::kFloat16 ? T(65504) : T(3.3895313892515355e38);
  T x = (scale < floor ? floor : scale) * unit<kGrid, T>();
  const bool saturates = rounding != Rounding::kNone && x > largest && x - x == T(0);  // infinity stays
  x = saturates ? largest : x;
  return round_to(rounding, x);
}

/// A group's constants, and the grid's functions of u = w / a.
template <Grid kGrid, class T>
struct Group {
  T stored, a, low, high, zero;

  SATIN_INLINE Group(const FakeQuantGrid& grid, T scale, T zero_point) {
    stored = stored_scale<kGrid, T>(grid.scale_rounding, scale);
    const T num_levels = T(1 << grid.bits);
    zero = T(0);
    if constexpr (kGrid == Grid::kAsymmetric) {
      zero = round_half_even(clamp(zero_point, T(0), num_levels - 1));
      stored += zero - zero;  // NaN where the zero point is
      low = -zero;
      high = num_levels - 1 - zero;
    } else {
      constexpr bool kUnitRange = kHasSigns<kGrid> || kGrid == Grid::kBitNet;
      low = kUnitRange ? T(-1) : -num_levels / 2;
      high = kUnitRange ? T(1) : num_levels / 2 - 1;
    }
    a = kGrid == Grid::kSeq ? stored * 4 : kGrid == Grid::kTernary ? stored * T(1.5) : stored;
  }

  /// The integer level of u: after_rounding(round(before_rounding(u))), or its sign.
  SATIN_INLINE T level(T u) const {
    if constexpr (kHasSigns<kGrid>) {
      const T sign = u < T(0) ? T(-1) : T(1);
      return u == u ? sign : u;
    } else {
      return after_rounding(round_half_even(before_rounding(u)));
    }
  }
  SATIN_INLINE T before_rounding(T u) const {
    if constexpr (kGrid == Grid::kSeq) return 2 * clamp(u, T(-0.99), T(0.99)) - T(0.5);
    if constexpr (kGrid == Grid::kTernary) return T(1.5) * clamp(u, T(-0.99), T(0.99));
    return clamp(u, low, high);  // the bounds are integers: clamping first is the same
  }
  SATIN_INLINE T after_rounding(T rounded) const { return kGrid == Grid::kSeq ? 2 * rounded + 1 : rounded; }

  SATIN_INLINE bool inside(T u) const {
    if constexpr (kGrid == Grid::kSeq || kGrid == Grid::kTernary) {
      return (u < T(0.99)) & (u > T(-0.99));
    } else if constexpr (kGrid == Grid::kAsymmetric) {
      const T rounded = round_half_even(clamp(u, low - 1, high + 1));
      return rounded == clamp(rounded, low, high);
    } else if constexpr (kGrid == Grid::kBitNet || kGrid == Grid::kOneBit) {
      return u == u;
    } else {
      return (u >= low) & (u <= high);
    }
  }

  /// What a weight inside the range multiplies its gradient with.
  SATIN_INLINE T gradient_factor(T w) const {
    if constexpr (kGrid == Grid::kOneBit) {
      const T t = std::tanh(w);
      return stored * (T(1.001) - t * t);
    }
    return T(1);
  }

  /// 0 .. 2^bits - 1; 0 for NaN.
  SATIN_INLINE int code(T level) const {
    const T offset = kGrid == Grid::kSeq       ? (level + 3) / 2
                     : kHasSigns<kGrid>        ? (level + 1) / 2
                     : kGrid == Grid::kTernary ? level + 1
                                               : level - low;
    return static_cast<int>(offset == offset ? offset : T(0));
  }

  /// The integer that a code of level 0 has (SEQ 3 and binary 1 on the doubled grid); 0 for NaN.
  SATIN_INLINE int32_t zero_code() const {
    const T code = kGrid == Grid::kSeq ? T(3) : kGrid == Grid::kTernary ? T(1) : -low;
    return static_cast<int32_t>(code == code ? code : T(0));
  }
};

}  // namespace satin::kernels
