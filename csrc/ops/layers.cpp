#include "ops/layers.h"

#include <torch/library.h>

#include "ops/find_operator.h"

TORCH_LIBRARY_FRAGMENT(satin, m) {
  m.def("rms_norm(Tensor x, Tensor? delta, Tensor weight, float eps, ScalarType dtype) -> (Tensor, Tensor, Tensor)");
  m.def(
      "rms_norm_backward(Tensor grad, Tensor? grad_later, Tensor sum, Tensor weight, Tensor rstd, bool with_delta) "
      "-> (Tensor, Tensor, Tensor)");
  m.def("swiglu(Tensor gate, Tensor up) -> Tensor");
  m.def("swiglu_backward(Tensor grad, Tensor gate, Tensor up) -> (Tensor, Tensor)");
  m.def("rotate(Tensor x, Tensor cos, Tensor sin, bool inverse) -> Tensor");
}

namespace satin::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using TensorTriple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

OptionalTensor optional(const at::Tensor& x) { return x.defined() ? OptionalTensor(x) : std::nullopt; }

}  // namespace

RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight, double eps,
                       at::ScalarType dtype) {
  using Signature = TensorTriple(const at::Tensor&, const OptionalTensor&, const at::Tensor&, double, at::ScalarType);
  static const auto op = find_operator<Signature>("satin::rms_norm");
  auto [sum, y, rstd] = op.call(x, optional(delta), weight, eps, dtype);
  return {delta.defined() ? sum : x, y};
}

RmsNormGradients rms_norm_backward(const at::Tensor& grad, const at::Tensor& grad_later, const at::Tensor& sum,
                                   const at::Tensor& weight, const at::Tensor& rstd, bool with_delta) {
  using Signature = TensorTriple(const at::Tensor&, const OptionalTensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, bool);
  static const auto op = find_operator<Signature>("satin::rms_norm_backward");
  auto [x, delta, grad_weight] = op.call(grad, optional(grad_later), sum, weight, rstd, with_delta);
  return {x, delta, grad_weight};
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  static const auto op = find_operator<at::Tensor(const at::Tensor&, const at::Tensor&)>("satin::swiglu");
  return op.call(gate, up);
}

SwigluGradients swiglu_backward(const at::Tensor& grad, const at::Tensor& gate, const at::Tensor& up) {
  using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&);
  static const auto op = find_operator<Signature>("satin::swiglu_backward");
  auto [grad_gate, grad_up] = op.call(grad, gate, up);
  return {grad_gate, grad_up};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  static const auto op =
      find_operator<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool)>("satin::rotate");
  return op.call(x, cos, sin, inverse);
}

}  // namespace satin::ops
