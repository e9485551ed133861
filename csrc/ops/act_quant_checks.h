// What both bindings of act_quant.h check before they hand pointers to a kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/act_quant.h"

namespace satin::ops {

/// Inputs as kernels take them: contiguous, on one device, scale in the arithmetic dtype.
struct ActQuantInputs {
  kernels::ActivationFormat format;
  kernels::Extent extent;
  at::Tensor x, scale;  ///< scale undefined in the dynamic form

  /// Throws InternalError naming what does not fit.
  ActQuantInputs(const at::Tensor& x, int64_t format);
  ActQuantInputs(const at::Tensor& x, const at::Tensor& scale, int64_t format);

  /// The incoming gradient in x's dtype, contiguous; throws InternalError when it is not x's size.
  at::Tensor checked_grad(const at::Tensor& grad) const;
  /// Uninitialised outputs of act_quant_codes: codes [..., C] and scale [...].
  at::Tensor empty_codes() const;
  at::Tensor empty_scale() const;
};

}  // namespace satin::ops
