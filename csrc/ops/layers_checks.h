// What both bindings of layers.h check before they hand pointers to a kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace satin::ops {

/// A normalisation's tensors as kernels take them: contiguous, on one device.
struct RmsNormInputs {
  kernels::Extent extent;
  at::Tensor x, delta;   ///< delta undefined: none
  at::Tensor weight;     ///< in the arithmetic's dtype
  at::ScalarType dtype;  ///< of y and delta

  /// Throws InternalError naming what does not fit.
  RmsNormInputs(const at::Tensor& x, const std::optional<at::Tensor>& delta, const at::Tensor& weight,
                at::ScalarType dtype);
  at::Tensor empty_rstd() const;  ///< [...] without the last dimension, in the arithmetic's dtype
  const void* delta_data() const { return delta.defined() ? delta.const_data_ptr() : nullptr; }
};
/// A gradient in the dtype that the kernel reads, contiguous. Throws InternalError for another shape or device.
at::Tensor checked_gradient(const at::Tensor& grad, const at::Tensor& like, at::ScalarType dtype);

/// Throws InternalError naming what does not fit.
void check_alike(const at::Tensor& gate, const at::Tensor& up);

/// A rotation's tensors: x with contiguous features, tables contiguous and in the arithmetic's dtype.
struct RotateInputs {
  kernels::RopeShape shape;
  at::Tensor x, cos, sin;

  /// Throws InternalError naming what does not fit.
  RotateInputs(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
};
kernels::RopeStrides rope_strides(const at::Tensor& x);

}  // namespace satin::ops
