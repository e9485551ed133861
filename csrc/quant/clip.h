// Learned weight clipping: the range of a min-max grid shrinks by learned factors.
//   high' = sigmoid(clip_high) max(w, 0), low' = sigmoid(clip_low) min(w, 0)
//   scale = (high' - low') / (2^b - 1), zero_point = -low' / stored(scale)
// Rounding of scale and zero point is straight through; the weight's extremes are constants.
// Source: Shao et al. 2024 (OmniQuant), eq. 2.
#pragma once
#include "quant/quantizer.h"

namespace satin::quant {

/// sigmoid(4) = .982: nearly the whole range.
inline constexpr double kInitialClip = 4;

/// Differentiable in clip_high and clip_low [N, G]. The kernels' gradient multiplier is taken out again: it is LSQ's.
QuantizerState clipped_state(const at::Tensor& weight, const at::Tensor& clip_high, const at::Tensor& clip_low,
                             const ops::FakeQuantGrid& grid);

/// The same value; gradients that pass through it are multiplied. In place of a node of its own, a hook.
at::Tensor with_scaled_gradient(const at::Tensor& value, double factor);

}  // namespace satin::quant
