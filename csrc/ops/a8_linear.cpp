#include "ops/a8_linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "core/error.h"
#include "kernels/packed_a8.h"
#include "ops/a8_kernels.h"
#include "ops/act_quant.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// act_quant_codes in the order of packed_a8.h.
A8Codes codes_on_cpu(const at::Tensor& x) {
  const at::ScalarType arithmetic = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const auto [codes, scale] = act_quant_codes(x.to(arithmetic), ActivationFormat::kInt8);
  std::vector<int64_t> places(static_cast<size_t>(x.size(1)));
  for (size_t k = 0; k < places.size(); ++k) places[k] = kernels::a8_place(static_cast<int64_t>(k));
  at::Tensor in_order = at::zeros({x.size(0), kernels::a8_row_bytes(x.size(1))}, at::kByte);
  in_order.index_copy_(1, at::tensor(places, at::kLong), codes.view(at::kByte));
  return {in_order, scale.reshape(-1), act_quant(x, ActivationFormat::kInt8)};
}

template <class T>
at::Tensor multiply_on_cpu(const A8Codes& x, const PackedWeight& weight, const at::Tensor& bias) {
  constexpr at::ScalarType kType = std::is_same_v<T, double> ? at::kDouble : at::kFloat;
  const at::Tensor scales = x.scales.to(kType).contiguous(), offset = bias.defined() ? bias.to(kType) : bias;
  at::Tensor y = at::empty({x.codes.size(0), weight.shape.num_rows}, kType);
  const kernels::PackedA8Reference<T> args{weight.matrix(),
                                           x.codes.size(0),
                                           x.codes.const_data_ptr<uint8_t>(),
                                           scales.const_data_ptr<T>(),
                                           y.mutable_data_ptr<T>(),
                                           bias.defined() ? offset.const_data_ptr<T>() : nullptr};
  over_rows({weight.shape.row_bricks(), kernels::kBrickRows * weight.shape.num_columns},
            [&](int64_t begin, int64_t end) { kernels::packed_a8_reference<T>(args, begin, end); });
  return y;
}

struct A8Linear : torch::autograd::Function<A8Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const PackedWeight* packed) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous(), offset = bias ? bias->contiguous() : at::Tensor();
    const A8Codes codes = x.is_cuda() ? a8_codes(rows, weight.requires_grad()) : codes_on_cpu(rows);
    context->save_for_backward({weight, codes.values});
    context->saved_data["has_bias"] = bias.has_value();
    const at::Tensor y = x.is_cuda()                      ? packed_a8(codes, *packed, offset, x.scalar_type())
                         : x.scalar_type() == at::kDouble ? multiply_on_cpu<double>(codes, *packed, offset)
                                                          : multiply_on_cpu<float>(codes, *packed, offset);
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = packed->shape.num_rows;
    return y.to(x.scalar_type()).view(shape);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    variable_list result(4);
    if (!grads[0].defined()) return result;
    const at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const at::Tensor &weight = saved[0], &values = saved[1];
    const at::Tensor grad = grads[0].reshape({-1, grads[0].size(-1)});
    if (context->needs_input_grad(0)) {
      std::vector<int64_t> shape = grads[0].sizes().vec();
      shape.back() = weight.size(1);
      result[0] = grad.matmul(weight).view(shape);
    }
    if (context->needs_input_grad(1)) result[1] = grad.t().matmul(values);
    if (context->saved_data["has_bias"].toBool() && context->needs_input_grad(2)) result[2] = grad.sum(0);
    return result;
  }
};

}  // namespace

std::string reason_against_a8(const kernels::PackedShape& shape, at::ScalarType dtype, int capability) {
  if (capability != 90) return cat("int8 products with packed weights need sm_90, found sm_", capability);
  if (dtype != at::kBFloat16) return cat("products in ", dtype);
  if (shape.bits > 4) return cat(shape.bits, " bits");
  if (shape.num_columns % 8 != 0) return "rows of x are not a multiple of 16 bytes";
  if (shape.num_groups() > 1 && (shape.group_size < 64 || (shape.group_size & (shape.group_size - 1)) != 0))
    return cat("groups of ", shape.group_size, " (powers of two from 64 on, or whole rows)");
  return "";
}

at::Tensor a8_linear(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias) {
  const kernels::PackedShape& shape = packed.shape;
  SATIN_CHECK(x.dim() > 0 && x.size(-1) == shape.num_columns, "x ", x.sizes(), " of ", shape.num_columns, " columns");
  SATIN_CHECK(x.device() == packed.words.device() && x.device() == weight.device(), x.device());
  SATIN_CHECK(weight.dim() == 2 && weight.size(0) == shape.num_rows && weight.size(1) == shape.num_columns &&
                  weight.scalar_type() == x.scalar_type(),
              "weight ", weight.sizes(), " ", weight.scalar_type());
  SATIN_CHECK(!bias || (bias->numel() == shape.num_rows && bias->scalar_type() == x.scalar_type()), "bias");
  return A8Linear::apply(x, weight, bias, &packed);
}

}  // namespace satin::ops
