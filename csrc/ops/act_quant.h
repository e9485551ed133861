// Fake quantization of activations and KV-cache rows, typed. Each is also in PyTorch's dispatcher as satin::<name>.
//
// Shapes   x [..., C]: a scale for each row of the last dimension, or one for the tensor. Any strides.
// Dtypes   x float | bfloat16 | double.
// Errors   UserError never; InternalError for shapes, dtypes or devices that do not agree.
#pragma once
#include <ATen/core/Tensor.h>

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
/// act_quant taken apart: value = scale * code, the same bits.
ActCodes act_quant_codes(const at::Tensor& x, ActivationFormat format);

}  // namespace satin::ops
