#include "ops/act_quant.h"

#include <ATen/ops/add.h>
#include <ATen/ops/sub.h>
#include <torch/library.h>

#include "core/error.h"
#include "ops/find_operator.h"

TORCH_LIBRARY_FRAGMENT(satin, m) {  // `format` is the enumerator's number
  m.def("act_quant(Tensor x, int format) -> Tensor");
  m.def("act_quant_codes(Tensor x, int format) -> (Tensor, Tensor)");
  m.def("act_quant_static(Tensor x, Tensor scale, int format) -> Tensor");
  m.def("act_quant_static_backward(Tensor grad, Tensor x, Tensor scale, int format) -> (Tensor, Tensor)");
}

namespace satin::ops {
namespace {

using TensorPair = std::tuple<at::Tensor, at::Tensor>;

thread_local FrozenRounding* frozen = nullptr;

at::Tensor rounded(const at::Tensor& x, ActivationFormat format) {
  static const auto op = find_operator<at::Tensor(const at::Tensor&, int64_t)>("satin::act_quant");
  return op.call(x, static_cast<int64_t>(format));
}

}  // namespace

at::Tensor act_quant(const at::Tensor& x, ActivationFormat format) {
  return frozen ? frozen->round(x, format) : rounded(x, format);
}

FrozenRounding::FrozenRounding() {
  SATIN_CHECK(!frozen, "rounding is frozen already");
  frozen = this;
}

FrozenRounding::~FrozenRounding() { frozen = nullptr; }

void FrozenRounding::replay() {
  SATIN_CHECK(!replays_ || next_ == residuals_.size(), next_, " of ", residuals_.size(), " roundings were repeated");
  replays_ = true;
  next_ = 0;
}

at::Tensor FrozenRounding::round(const at::Tensor& x, ActivationFormat format) {
  if (!replays_) {
    frozen = nullptr;  // the operator's own forward calls act_quant
    const at::Tensor y = rounded(x, format);
    frozen = this;
    residuals_.push_back(y.detach() - x.detach());
    return y;
  }
  SATIN_CHECK(next_ < residuals_.size(), "only ", residuals_.size(), " roundings were recorded");
  return x + residuals_[next_++];
}

at::Tensor act_quant_static(const at::Tensor& x, const at::Tensor& scale, ActivationFormat format) {
  SATIN_CHECK(!frozen, "rounding with a learned scale cannot be frozen");
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t);
  static const auto op = find_operator<Signature>("satin::act_quant_static");
  return op.call(x, scale, static_cast<int64_t>(format));
}

ActQuantGradients act_quant_static_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& scale,
                                            ActivationFormat format) {
  using Signature = TensorPair(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t);
  static const auto op = find_operator<Signature>("satin::act_quant_static_backward");
  auto [grad_x, grad_scale] = op.call(grad, x, scale, static_cast<int64_t>(format));
  return {grad_x, grad_scale};
}

ActCodes act_quant_codes(const at::Tensor& x, ActivationFormat format) {
  static const auto op = find_operator<TensorPair(const at::Tensor&, int64_t)>("satin::act_quant_codes");
  auto [codes, scale] = op.call(x, static_cast<int64_t>(format));
  return {codes, scale};
}

}  // namespace satin::ops
