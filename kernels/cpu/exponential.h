// An exponential that compilers vectorise. CPU kernels only.
#pragma once
#include <cmath>

#include "kernels/fake_quant_math.h"

namespace satin::kernels {

inline double exp_of(double x) { return std::exp(x); }
/// exp(x) for x <= 0 within 2 units in the last place, without a call: x = n ln 2 + r, a polynomial for exp(r)
/// (Cephes). Below the normal numbers it is 0.
SATIN_INLINE float exp_of(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, held in the low bits
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = clamped * 1.44269504f + kRound, n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float y = 1.9875691500e-4f;
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = (y * r) * r + r + 1.0f;
  const float power = float_of((bits_of(shifted) + 127u) << 23);
  return x < -87.0f ? 0.0f : y * power;
}

}  // namespace satin::kernels
