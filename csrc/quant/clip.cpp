#include "quant/clip.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace satin::quant {

at::Tensor with_scaled_gradient(const at::Tensor& value, double factor) {
  if (value.requires_grad() && !value.is_leaf())
    value.register_hook([factor](const at::Tensor& gradient) { return gradient * factor; });
  return value;
}

QuantizerState clipped_state(const at::Tensor& weight, const at::Tensor& clip_high, const at::Tensor& clip_low,
                             const ops::FakeQuantGrid& grid) {
  const auto [low, high] =
      at::aminmax(weight.detach().view({weight.size(0), -1, grid.group_size}).to(clip_high.scalar_type()), -1);
  const double top = (1 << grid.bits) - 1;
  const at::Tensor lowest = at::sigmoid(clip_low) * low.clamp_max(0);
  const at::Tensor scale = (at::sigmoid(clip_high) * high.clamp_min(0) - lowest) / top;
  const at::Tensor stored = ops::effective_scale(scale.detach(), grid);
  const at::Tensor zero_point = -lowest / (scale + (stored - scale.detach()));
  const double undo = 1 / kernels::gradient_multiplier(grid);
  // Copies, so that what the scale contributes to the zero point is not multiplied.
  return {with_scaled_gradient(scale * 1, undo), with_scaled_gradient(zero_point, undo)};
}

}  // namespace satin::quant
