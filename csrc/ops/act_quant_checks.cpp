#include "ops/act_quant_checks.h"

#include <ATen/Functions.h>

#include <stdexcept>

#include "core/error.h"
#include "ops/checks.h"

namespace satin::ops {

ActQuantInputs::ActQuantInputs(const at::Tensor& x, int64_t format) : x(x.contiguous()) {
  SATIN_CHECK(format >= 0 && format <= 2, "unknown activation format ", format);
  SATIN_CHECK(x.dim() >= 1, "activations without dimensions");
  const at::ScalarType dtype = x.scalar_type();
  SATIN_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble,
              "expected float32, bfloat16 or float64 activations, found ", toString(dtype));
  this->format = static_cast<kernels::ActivationFormat>(format);
  extent = {1, x.size(-1)};
  for (int64_t i = 0; i + 1 < x.dim(); ++i) extent.num_rows *= x.size(i);
  try {
    kernels::check(this->format, extent);
  } catch (const std::invalid_argument& error) {
    throw InternalError(error.what());
  }
}

ActQuantInputs::ActQuantInputs(const at::Tensor& x, const at::Tensor& scale, int64_t format)
    : ActQuantInputs(x, format) {
  SATIN_CHECK_EQ(scale.numel(), 1, "scales of static activations");
  SATIN_CHECK_EQ(scale.device(), x.device(), "scale");
  this->scale = scale.to(arithmetic_dtype(x));
}

at::Tensor ActQuantInputs::checked_grad(const at::Tensor& grad) const {
  SATIN_CHECK(grad.sizes() == x.sizes(), "expected a gradient ", x.sizes(), ", found ", grad.sizes());
  SATIN_CHECK_EQ(grad.device(), x.device(), "gradient");
  return grad.to(x.scalar_type()).contiguous();
}

at::Tensor ActQuantInputs::empty_codes() const {
  const bool float8 = format == kernels::ActivationFormat::kFloat8;
  return at::empty(x.sizes(), x.options().dtype(float8 ? at::kFloat8_e4m3fn : at::kChar));
}

at::Tensor ActQuantInputs::empty_scale() const {
  return at::empty(x.sizes().slice(0, static_cast<size_t>(x.dim() - 1)), x.options().dtype(arithmetic_dtype(x)));
}

}  // namespace satin::ops
