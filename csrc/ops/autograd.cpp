// Gradients of the operators on weights. Everything else about derivatives is in kernels/fake_quant.h.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/ops.h"

namespace satin::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FakeQuant : torch::autograd::Function<FakeQuant> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& weight, const at::Tensor& scale,
                            const std::optional<at::Tensor>& zero_point, const FakeQuantGrid& grid,
                            at::ScalarType dtype) {
    const at::AutoDispatchBelowADInplaceOrView below;
    // Only the inputs are kept: the backward divides again, which costs less than a saved mask.
    context->save_for_backward({weight, scale, zero_point.value_or(at::Tensor())});
    context->saved_data["kind"] = static_cast<int64_t>(grid.kind);
    context->saved_data["bits"] = static_cast<int64_t>(grid.bits);
    context->saved_data["group_size"] = grid.group_size;
    context->saved_data["scale_rounding"] = static_cast<int64_t>(grid.scale_rounding);
    return ops::fake_quant(weight, scale, zero_point, grid, dtype);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list result(5);
    if (!grads[0].defined()) return result;
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const auto number = [&](const char* key) { return context->saved_data[key].toInt(); };
    const FakeQuantGradients gradients = ops::fake_quant_backward(
        grads[0], saved[0], saved[1], saved[2].defined() ? std::optional(saved[2]) : std::nullopt,
        make_grid(number("kind"), number("bits"), number("group_size"), number("scale_rounding"), 0));
    result[0] = gradients.weight;
    result[1] = gradients.scale;
    result[2] = gradients.zero_point;
    return result;
  }
};

at::Tensor fake_quant_autograd(const at::Tensor& weight, const at::Tensor& scale,
                               const std::optional<at::Tensor>& zero_point, int64_t kind, int64_t bits,
                               int64_t group_size, int64_t scale_rounding, int64_t dequant_rounding,
                               at::ScalarType dtype) {
  return FakeQuant::apply(weight, scale, zero_point,
                          make_grid(kind, bits, group_size, scale_rounding, dequant_rounding), dtype);
}

TORCH_LIBRARY_IMPL(satin, Autograd, m) { m.impl("fake_quant", fake_quant_autograd); }

}  // namespace

void anchor_autograd() {}

}  // namespace satin::ops
