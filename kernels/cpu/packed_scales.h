// Scales and zeros of packed weights as floats.
#pragma once
#include "kernels/fake_quant_math.h"
#include "kernels/packed_matmul.h"

namespace satin::kernels {

SATIN_INLINE float half_value(Half dtype, uint16_t bits) {
  if (dtype == Half::kBFloat16) return float_of(static_cast<uint32_t>(bits) << 16);
  const uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  const float finite = float_of(magnitude << 13) * float_of(0x77800000u);  // exponents' bases differ by 112
  return float_of(bits_of(magnitude >= 0x7c00u ? float_of(0x7f800000u | magnitude << 13) : finite) | sign);
}

/// Floats of brick row `row`, [group][16] in the order of the packed scales; the step is part of the scale.
SATIN_INLINE void read_scales(const PackedMatrix& w, int64_t row, float* scales, float* zeros) {
  const int64_t count = w.shape.num_groups() * kBrickRows, first = row * count;
  const uint16_t* from = static_cast<const uint16_t*>(w.scales) + first;
  const float step = static_cast<float>(w.step);
  for (int64_t i = 0; i < count; ++i) scales[i] = step * half_value(w.scale_dtype, from[i]);
  for (int64_t i = 0; i < count; ++i) zeros[i] = static_cast<float>(w.zeros ? w.zeros[first + i] : w.zero) / step;
}

}  // namespace satin::kernels
