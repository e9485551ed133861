#include "ops/layers_checks.h"

#include <ATen/Functions.h>

#include "core/error.h"
#include "ops/checks.h"

namespace satin::ops {
namespace {

void check_dtype(const at::Tensor& x) {
  const at::ScalarType dtype = x.scalar_type();
  SATIN_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble,
              "expected float32, bfloat16 or float64, found ", toString(dtype));
}

}  // namespace

RmsNormInputs::RmsNormInputs(const at::Tensor& x, const std::optional<at::Tensor>& delta, const at::Tensor& weight,
                             at::ScalarType dtype)
    : x(x.contiguous()), dtype(dtype) {
  check_dtype(x);
  SATIN_CHECK(x.dim() >= 1 && x.size(-1) >= 1, "expected features, found ", x.sizes());
  SATIN_CHECK(!x.is_cuda() || x.size(-1) <= kernels::kMaxNormColumns, "expected at most ", kernels::kMaxNormColumns,
              " features on CUDA, found ", x.sizes());
  SATIN_CHECK(dtype == x.scalar_type() || (x.scalar_type() == at::kFloat && dtype == at::kBFloat16), "a norm of ",
              toString(x.scalar_type()), " in ", toString(dtype));
  SATIN_CHECK(weight.dim() == 1 && weight.size(0) == x.size(-1), "expected a weight [", x.size(-1), "], found ",
              weight.sizes());
  SATIN_CHECK_EQ(weight.device(), x.device(), "weight");
  this->weight = weight.to(arithmetic_dtype(x)).contiguous();
  extent = {x.numel() / x.size(-1), x.size(-1)};
  if (!delta) return;
  SATIN_CHECK(x.scalar_type() != at::kBFloat16, "a residual sum in bfloat16");
  this->delta = checked_gradient(*delta, x, dtype);
}

at::Tensor RmsNormInputs::empty_rstd() const {
  return at::empty(x.sizes().slice(0, static_cast<size_t>(x.dim() - 1)), x.options().dtype(arithmetic_dtype(x)));
}

at::Tensor checked_gradient(const at::Tensor& grad, const at::Tensor& like, at::ScalarType dtype) {
  SATIN_CHECK(grad.sizes() == like.sizes(), "expected ", like.sizes(), ", found ", grad.sizes());
  SATIN_CHECK_EQ(grad.device(), like.device(), "device");
  return grad.to(dtype).contiguous();
}

void check_alike(const at::Tensor& gate, const at::Tensor& up) {
  check_dtype(gate);
  SATIN_CHECK(gate.sizes() == up.sizes(), "gate ", gate.sizes(), ", up ", up.sizes());
  SATIN_CHECK_EQ(gate.scalar_type(), up.scalar_type(), "gate and up");
  SATIN_CHECK_EQ(gate.device(), up.device(), "gate and up");
}

RotateInputs::RotateInputs(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin)
    : x(x.dim() == 4 && x.stride(-1) == 1 ? x : x.contiguous()), cos(cos.contiguous()), sin(sin.contiguous()) {
  check_dtype(x);
  SATIN_CHECK(x.dim() == 4 && x.size(-1) % 2 == 0 && x.size(-1) > 0, "expected [B, heads, T, even], found ", x.sizes());
  shape = {x.size(0), x.size(1), x.size(2), x.size(3)};
  for (const at::Tensor& table : {cos, sin}) {
    SATIN_CHECK(table.dim() == 2 && table.size(0) == x.size(2) && table.size(1) == x.size(3) / 2, "expected a table [",
                x.size(2), ", ", x.size(3) / 2, "], found ", table.sizes());
    SATIN_CHECK_EQ(table.scalar_type(), arithmetic_dtype(x), "rotation table");
    SATIN_CHECK_EQ(table.device(), x.device(), "rotation table");
  }
}

kernels::RopeStrides rope_strides(const at::Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2)}; }

}  // namespace satin::ops
