// Fake quantization of activations and KV-cache rows, typed. Each is also in PyTorch's dispatcher as satin::<name>.
//
// Shapes   x [..., C]: a scale for each row of the last dimension, or one for the tensor. Any strides.
// Dtypes   x float | bfloat16 | double.
// Errors   UserError never; InternalError for shapes, dtypes or devices that do not agree.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/act_quant.h"

namespace satin::ops {

using kernels::ActivationFormat;

/// x as the format holds it with a scale read off each row, in x's dtype. Differentiable: nothing is clipped, so the
/// straight-through gradient is the identity. Source: kernels/act_quant.h.
at::Tensor act_quant(const at::Tensor& x, ActivationFormat format);

/// The same with one scale [1] (float; double with a double x), a learned parameter. Differentiable with respect to x
/// and scale.
at::Tensor act_quant_static(const at::Tensor& x, const at::Tensor& scale, ActivationFormat format);

struct ActQuantGradients {
  at::Tensor x;      ///< [..., C] in x's dtype
  at::Tensor scale;  ///< [1] in scale's dtype
};
/// Gradients of act_quant_static for an incoming gradient [..., C].
ActQuantGradients act_quant_static_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
                                            ActivationFormat format);

struct ActCodes {
  at::Tensor codes;  ///< [..., C] int8, or float8_e4m3fn for kFloat8
  at::Tensor scale;  ///< [...] float (double with a double x)
};

/// Differences by steps far below a level of the grid see rounding either not at all or as a jump. While this lives,
/// act_quant on this thread first records what it rounds away, call by call; after replay() it adds that to x instead,
/// calls in the same order. Gradients stay the identity. act_quant_static cannot be frozen (InternalError).
class FrozenRounding {
 public:
  FrozenRounding();
  ~FrozenRounding();
  FrozenRounding(const FrozenRounding&) = delete;
  FrozenRounding& operator=(const FrozenRounding&) = delete;

  /// From the first call on; as often as wanted.
  void replay();
  at::Tensor round(const at::Tensor& x, ActivationFormat format);  ///< for act_quant

 private:
  std::vector<at::Tensor> residuals_;  ///< Q(x) - x
  bool replays_ = false;
  size_t next_ = 0;
};
/// act_quant taken apart: value = scale * code, the same bits.
ActCodes act_quant_codes(const at::Tensor& x, ActivationFormat format);

}  // namespace satin::ops
