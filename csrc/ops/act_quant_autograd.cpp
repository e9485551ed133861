// Gradients of the operators on activations.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/act_quant.h"
#include "ops/anchors.h"

namespace satin::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ActQuant : torch::autograd::Function<ActQuant> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& x, int64_t format) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return ops::act_quant(x, static_cast<ActivationFormat>(format));
  }
  static variable_list backward(AutogradContext*, const variable_list& grads) { return {grads[0], at::Tensor()}; }
};

struct ActQuantStatic : torch::autograd::Function<ActQuantStatic> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& scale, int64_t format) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, scale});
    context->saved_data["format"] = format;
    return ops::act_quant_static(x, scale, static_cast<ActivationFormat>(format));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list result(3);
    if (!grads[0].defined()) return result;
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const ActQuantGradients gradients = ops::act_quant_static_backward(
        grads[0], saved[0], saved[1], static_cast<ActivationFormat>(context->saved_data["format"].toInt()));
    result[0] = gradients.x;
    result[1] = gradients.scale;
    return result;
  }
};

at::Tensor act_quant_autograd(const at::Tensor& x, int64_t format) { return ActQuant::apply(x, format); }

at::Tensor act_quant_static_autograd(const at::Tensor& x, const at::Tensor& scale, int64_t format) {
  return ActQuantStatic::apply(x, scale, format);
}

TORCH_LIBRARY_IMPL(satin, Autograd, m) {
  m.impl("act_quant", act_quant_autograd);
  m.impl("act_quant_static", act_quant_static_autograd);
}

}  // namespace

void anchor_act_quant_autograd() {}

}  // namespace satin::ops
