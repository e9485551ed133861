// When training multiplies int8 inputs with a weight's codes (ops/a8_linear.h) instead of fake-quantized numbers in the
// compute dtype, and the codes, packed once a step.
#pragma once
#include <string>

#include "quant/quant_linear.h"

namespace satin::quant {

/// Why this layer's products stay in `dtype`, for people; empty: int8 codes are multiplied, and that is faster.
std::string reason_against_low_bit(const QuantLinear& linear, at::ScalarType dtype);
/// The same from what it depends on. capability: 90 for sm_90, 0 for the CPU.
std::string reason_against_low_bit(const Scheme& scheme, int64_t out_features, int64_t in_features,
                                   at::ScalarType dtype, int capability);
/// Logs once a kind of layer what was chosen.
void say_low_bit_once(const Scheme& scheme, const std::string& why_not);

/// The codes of a weight [N, K] with this state, on its device; nothing waits for the device.
ops::PackedWeight pack_for_product(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme);

}  // namespace satin::quant
