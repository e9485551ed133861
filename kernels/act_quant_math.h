// One value's arithmetic and a row's scale, shared by the CPU and CUDA kernels so that both give the same bits. See
// act_quant.h. Branch-free, as fake_quant_math.h is.
#pragma once
#include <type_traits>

#include "kernels/act_quant.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {

/// The bits of |x|. They order as the numbers do, infinity and then NaN above all, so that the largest of a row is the
/// same in any order and shows whether the row is damaged.
template <class T>
using Magnitude = std::conditional_t<std::is_same_v<T, double>, uint64_t, uint32_t>;
SATIN_INLINE uint32_t magnitude(float x) { return bits_of(x) & 0x7fffffffu; }
SATIN_INLINE uint64_t magnitude(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits & 0x7fffffffffffffffu;
}
SATIN_INLINE float number_of(uint32_t bits) { return float_of(bits); }
SATIN_INLINE double number_of(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}
template <class Bits>
SATIN_INLINE Bits larger(Bits a, Bits b) {
  return a > b ? a : b;
}

template <class T>
SATIN_INLINE T static_scale(T scale) {
  return scale < T(1e-5) ? T(1e-5) : scale;
}
/// NaN for a damaged row.
template <class T>
SATIN_INLINE T dynamic_scale(Magnitude<T> largest, T top) {
  const T size = number_of(largest);
  return static_scale(size) / top + (size - size);
}

/// Nearest e4m3 number, ties to even, for |x| <= 448 or NaN; never -0. Added is 1.5 times the power of two at which
/// numbers are spaced as e4m3's around x are: 2^20 (2^49) times the power below |x|, or below the least normal 2^-6.
SATIN_INLINE float round_float8(float x) {
  const uint32_t power = larger(magnitude(x) & 0x7f800000u, 0x3c800000u);
  const float spacing = float_of(power + 0x0a400000u);
  return (x + spacing) - spacing;
}
SATIN_INLINE double round_float8(double x) {
  const uint64_t power = larger(magnitude(x) & 0x7ff0000000000000u, uint64_t{0x3f90000000000000u});
  const double spacing = number_of(power + 0x0318000000000000u);
  return (x + spacing) - spacing;
}

/// A format's functions of u = x / scale. Integers differ in `top` alone.
template <bool kFloat8, class T>
struct ActivationLevels {
  T top;

  SATIN_INLINE T level(T u) const {
    const T clipped = clamp(u, -top, top);
    return kFloat8 ? round_float8(clipped) : round_half_even(clipped);
  }
  SATIN_INLINE bool inside(T u) const { return (u >= -top) & (u <= top); }

  /// A level's byte; 0 for NaN.
  SATIN_INLINE uint8_t code(T level) const {
    const float x = static_cast<float>(level == level ? level : T(0));
    if constexpr (kFloat8) {
      const uint32_t size = magnitude(x), sign = (bits_of(x) >> 24) & 0x80u;
      const uint32_t normal = (size >> 20) - (uint32_t{127 - 7} << 3);
      const uint32_t subnormal = static_cast<uint32_t>(static_cast<int32_t>(float_of(size) * 512));
      return static_cast<uint8_t>(sign | (size < 0x3c800000u ? subnormal : normal));
    } else {
      return static_cast<uint8_t>(static_cast<int>(x));
    }
  }
};

/// body.template operator()<kFloat8>().
template <class Body>
void for_format(ActivationFormat format, const Body& body) {
  if (format == ActivationFormat::kFloat8) {
    body.template operator()<true>();
  } else {
    body.template operator()<false>();
  }
}

}  // namespace satin::kernels
