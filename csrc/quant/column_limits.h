// Groups of a row with fewer bits than the grid that holds their codes (Scheme::column_bits): a group of b bits uses
// the part of the wide integer grid whose codes b bits have, so that kernels, packers and readers see one width.
//
//   levels of b bits: symmetric -2^(b-1) ... 2^(b-1) - 1; asymmetric -zero ... 2^b - 1 - zero, zero in 0 ... 2^b - 1
//   the limited weight: the weight where its level is among them, else scale * the end, which the wide grid leaves
//
// Forward and gradients are those of the same group under a plain scheme of b bits (kernels/fake_quant.h): a weight
// beyond the end gets none, scale and zero point get the end's, with the multiplier m of b bits.
#pragma once
#include "quant/quantizer.h"

namespace satin::quant {

/// What kernels take instead of a weight and its state; where no group is narrow, these themselves.
struct LimitedWeight {
  at::Tensor weight;  ///< [N, K] in the weight's dtype
  QuantizerState state;
  at::Tensor inside;  ///< [N, K] bool: false beyond the end of a narrow group; undefined where no group is
};

/// Differentiable in weight, scale and zero_point [N, G].
LimitedWeight limited(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme);

/// Gradients of what `limited` took, from those of what it gave.
ops::FakeQuantGradients through_limits(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme,
                                       const ops::FakeQuantGradients& gradients);

/// The fake-quantized weight in `dtype`, differentiable: what a layer of this scheme multiplies with.
at::Tensor fake_quantized(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme,
                          at::ScalarType dtype);
/// fake_quant_codes of it.
ops::FakeQuantCodes codes_of(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme);

/// initial_state with each group's own bits; the scheme has column_bits.
QuantizerState initial_state_of_columns(const at::Tensor& weight, const Scheme& scheme, const at::Tensor& importance);

}  // namespace satin::quant
