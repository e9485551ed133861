// Gradients of layers.h. Where the backward pass is itself recorded (gradients of gradients), it is the same formula
// in PyTorch's operators.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/layers.h"

namespace satin::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<at::Tensor>;
using TensorTriple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

/// Below autograd, with what the typed wrapper hides.
TensorTriple rms_norm_below(const at::Tensor& x, const OptionalTensor& delta, const at::Tensor& weight, double eps,
                            at::ScalarType dtype) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("satin::rms_norm", "")
          .typed<TensorTriple(const at::Tensor&, const OptionalTensor&, const at::Tensor&, double, at::ScalarType)>();
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(x, delta, weight, eps, dtype);
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  /// y, rstd and, with delta, the sum.
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const OptionalTensor& delta,
                               const at::Tensor& weight, double eps, at::ScalarType dtype) {
    auto [sum, y, rstd] = rms_norm_below(x, delta, weight, eps, dtype);
    context->set_materialize_grads(false);
    context->mark_non_differentiable({rstd});
    context->saved_data["eps"] = eps;
    context->saved_data["delta"] = delta.has_value();
    context->save_for_backward({delta ? sum : x, weight, rstd});
    if (delta) return {y, rstd, sum};
    return {y, rstd};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &sum = saved[0], &weight = saved[1];
    const bool with_delta = context->saved_data["delta"].toBool();
    const at::Tensor later = with_delta ? grads[2] : at::Tensor();
    variable_list result(5);
    if (!grads[0].defined()) {  // nothing reads the norm
      result[0] = later;
      if (with_delta) result[1] = later;  // the engine casts it to delta's dtype
      return result;
    }
    if (at::GradMode::is_enabled()) {
      const at::ScalarType arithmetic = arithmetic_dtype(sum);
      const at::Tensor s = sum.to(arithmetic), g = grads[0].to(arithmetic);
      const at::Tensor scale = (s.square().mean(-1, true) + context->saved_data["eps"].toDouble()).rsqrt();
      const at::Tensor n = s * scale, gw = g * weight.to(arithmetic);
      at::Tensor grad_x = (scale * (gw - n * (gw * n).mean(-1, true))).to(sum.scalar_type());
      if (later.defined()) grad_x = grad_x + later;
      result[0] = grad_x;
      if (with_delta) result[1] = grad_x.to(grads[0].scalar_type());
      result[2] = (g * n).reshape({-1, n.size(-1)}).sum(0).to(weight.scalar_type());
      return result;
    }
    const RmsNormGradients gradients = rms_norm_backward(grads[0], later, sum, weight, saved[2], with_delta);
    result[0] = gradients.x;
    if (with_delta) result[1] = gradients.delta;
    result[2] = gradients.weight.to(weight.scalar_type());
    return result;
  }
};

TensorTriple rms_norm_autograd(const at::Tensor& x, const OptionalTensor& delta, const at::Tensor& weight, double eps,
                               at::ScalarType dtype) {
  const variable_list out = RmsNorm::apply(x, delta, weight, eps, dtype);
  return {delta ? out[2] : at::Tensor(), out[0], out[1]};
}

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    const at::AutoDispatchBelowADInplaceOrView below;
    return ops::swiglu(gate, up);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    if (!grads[0].defined()) return variable_list(2);
    const auto saved = context->get_saved_variables();
    if (at::GradMode::is_enabled()) {
      const at::ScalarType arithmetic = arithmetic_dtype(saved[0]), dtype = saved[0].scalar_type();
      const at::Tensor g = saved[0].to(arithmetic), u = saved[1].to(arithmetic), d = grads[0].to(arithmetic);
      const at::Tensor s = g.sigmoid();
      return {(d * u * s * (1 + g * (1 - s))).to(dtype), (d * g * s).to(dtype)};
    }
    const SwigluGradients gradients = swiglu_backward(grads[0], saved[0], saved[1]);
    return {gradients.gate, gradients.up};
  }
};

at::Tensor swiglu_autograd(const at::Tensor& gate, const at::Tensor& up) { return Swiglu::apply(gate, up); }

struct Rotate : torch::autograd::Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                            bool inverse) {
    context->save_for_backward({cos, sin});
    context->saved_data["inverse"] = inverse;
    const at::AutoDispatchBelowADInplaceOrView below;
    return ops::rotate(x, cos, sin, inverse);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list result(4);
    if (!grads[0].defined()) return result;
    const auto saved = context->get_saved_variables();
    result[0] = ops::rotate(grads[0], saved[0], saved[1], !context->saved_data["inverse"].toBool());
    return result;
  }
};

at::Tensor rotate_autograd(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  return Rotate::apply(x, cos, sin, inverse);
}

TORCH_LIBRARY_IMPL(satin, Autograd, m) {
  m.impl("rms_norm", rms_norm_autograd);
  m.impl("swiglu", swiglu_autograd);
  m.impl("rotate", rotate_autograd);
}

}  // namespace

void anchor_layers_autograd() {}

}  // namespace satin::ops
