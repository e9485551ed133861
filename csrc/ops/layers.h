// What lies between a decoder's matrix products, fused and typed. Each is also in PyTorch's dispatcher as
// satin::<name>.
//
// Dtypes   float | bfloat16 | double; arithmetic is fp32, fp64 for double.
// Errors   UserError never; InternalError for shapes, dtypes or devices that do not agree.
// All are differentiable, any number of times: a backward pass that is itself recorded is composed of PyTorch's
// operators instead of the fused one.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

namespace satin::ops {

struct RmsNormResult {
  at::Tensor sum;  ///< x + delta in x's dtype; x itself without delta
  at::Tensor y;    ///< [..., C] in `dtype`
};
/// y = s / sqrt(mean(s^2) + eps) * weight over the last dimension, s = x + delta. x [..., C], delta like x in `dtype`
/// or undefined, weight [C] of any floating dtype. `dtype`: float or bfloat16 of a float x, else x's own.
/// Source: kernels/rms_norm.h.
RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight, double eps,
                       at::ScalarType dtype);

/// silu(gate) * up, tensors of one shape and dtype. Source: kernels/swiglu.h.
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

/// x [B, heads, T, D] of any strides, D even; cos, sin [T, D / 2] in the arithmetic's dtype. With (a, b) the halves of
/// the last dimension: (a cos - b sin, b cos + a sin), in x's dtype and with x's strides where it is dense. `inverse`:
/// by the opposite angle. Not differentiable in cos and sin. Source: kernels/rope.h.
at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse = false);

/// Gradients of the first two, of whole calls. They are not differentiable themselves.
struct RmsNormGradients {
  at::Tensor x;       ///< in x's dtype
  at::Tensor delta;   ///< the same rounded to grad's dtype; undefined unless asked for
  at::Tensor weight;  ///< [C] in the arithmetic's dtype
};
/// grad [..., C] of y; grad_later [..., C] of the sum from elsewhere, or undefined; rstd [...] as rms_norm_forward
/// gave.
RmsNormGradients rms_norm_backward(const at::Tensor& grad, const at::Tensor& grad_later, const at::Tensor& sum,
                                   const at::Tensor& weight, const at::Tensor& rstd, bool with_delta);

struct SwigluGradients {
  at::Tensor gate, up;
};
SwigluGradients swiglu_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up);

}  // namespace satin::ops
