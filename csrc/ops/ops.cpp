#include "ops/ops.h"

#include <ATen/ATen.h>

#include "ops/find_operator.h"

namespace satin::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using TensorPair = std::tuple<at::Tensor, at::Tensor>;
using TensorTriple = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

int64_t number(Grid grid) { return static_cast<int64_t>(grid); }
int64_t number(Rounding rounding) { return static_cast<int64_t>(rounding); }

}  // namespace

at::Tensor fake_quant(const at::Tensor& weight, const at::Tensor& scale, const OptionalTensor& zero_point,
                      const FakeQuantGrid& grid, at::ScalarType dtype) {
  using Signature = at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, int64_t, int64_t, int64_t,
                               int64_t, int64_t, at::ScalarType);
  static const auto op = find_operator<Signature>("satin::fake_quant");
  return op.call(weight, scale, zero_point, number(grid.kind), grid.bits, grid.group_size, number(grid.scale_rounding),
                 number(grid.dequant_rounding), dtype);
}

FakeQuantGradients fake_quant_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& scale,
                                       const OptionalTensor& zero_point, const FakeQuantGrid& grid) {
  using Signature = TensorTriple(const at::Tensor&, const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                                 int64_t, int64_t, int64_t, int64_t);
  static const auto op = find_operator<Signature>("satin::fake_quant_backward");
  auto [grad_weight, grad_scale, grad_zero_point] = op.call(grad, weight, scale, zero_point, number(grid.kind),
                                                            grid.bits, grid.group_size, number(grid.scale_rounding));
  return {grad_weight, grad_scale, grad_zero_point};
}

std::vector<at::Tensor> fake_quant_many(const FakeQuantBatch& batch, at::ScalarType dtype) {
  using Signature = std::vector<at::Tensor>(at::TensorList, at::TensorList, at::TensorList, int64_t, int64_t,
                                            at::IntArrayRef, int64_t, int64_t, at::ScalarType);
  static const auto op = find_operator<Signature>("satin::fake_quant_many");
  const FakeQuantGrid& grid = batch.grid;
  return op.call(batch.weights, batch.scales, batch.zero_points, number(grid.kind), grid.bits, batch.group_sizes,
                 number(grid.scale_rounding), number(grid.dequant_rounding), dtype);
}

FakeQuantGradientsBatch fake_quant_backward_many(const std::vector<at::Tensor>& grads, const FakeQuantBatch& batch) {
  using Lists = std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>, std::vector<at::Tensor>>;
  using Signature =
      Lists(at::TensorList, at::TensorList, at::TensorList, at::TensorList, int64_t, int64_t, at::IntArrayRef, int64_t);
  static const auto op = find_operator<Signature>("satin::fake_quant_backward_many");
  const FakeQuantGrid& grid = batch.grid;
  auto [weights, scales, zero_points] =
      op.call(grads, batch.weights, batch.scales, batch.zero_points, number(grid.kind), grid.bits, batch.group_sizes,
              number(grid.scale_rounding));
  return {weights, scales, zero_points};
}

FakeQuantCodes fake_quant_codes(const at::Tensor& weight, const at::Tensor& scale, const OptionalTensor& zero_point,
                                const FakeQuantGrid& grid) {
  using Signature =
      TensorTriple(const at::Tensor&, const at::Tensor&, const OptionalTensor&, int64_t, int64_t, int64_t, int64_t);
  static const auto op = find_operator<Signature>("satin::fake_quant_codes");
  auto [codes, stored, zero] =
      op.call(weight, scale, zero_point, number(grid.kind), grid.bits, grid.group_size, number(grid.scale_rounding));
  return {codes, stored, zero};
}

DataScales data_scale_many(const FakeQuantBatch& batch) {
  using Signature = std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>>(at::TensorList, int64_t, int64_t,
                                                                                 at::IntArrayRef, int64_t);
  static const auto op = find_operator<Signature>("satin::data_scale_many");
  auto [scales, zero_points] = op.call(batch.weights, number(batch.grid.kind), batch.grid.bits, batch.group_sizes,
                                       number(batch.grid.scale_rounding));
  return {scales, zero_points};
}

ClipSearchResult clip_search(const at::Tensor& weight, const FakeQuantGrid& grid, const OptionalTensor& importance) {
  using Signature = TensorPair(const at::Tensor&, const OptionalTensor&, int64_t, int64_t, int64_t, int64_t);
  static const auto op = find_operator<Signature>("satin::clip_search");
  auto [scale, zero_point] =
      op.call(weight, importance, number(grid.kind), grid.bits, grid.group_size, number(grid.scale_rounding));
  return {scale, zero_point};
}

at::Tensor effective_scale(const at::Tensor& scale, const FakeQuantGrid& grid) {
  FakeQuantGrid one_weight_a_group = grid;
  one_weight_a_group.group_size = 1;
  const at::Tensor zeros = at::zeros_like(scale);
  const OptionalTensor zero_point = grid.kind == Grid::kAsymmetric ? std::optional(zeros) : std::nullopt;
  const double per_unit = grid.kind == Grid::kSeq ? 4 : grid.kind == Grid::kTernary ? 1.5 : 1;
  return fake_quant_codes(zeros, scale, zero_point, one_weight_a_group).scale * per_unit;
}

std::vector<std::string> wrapped_operators() {
  return {"act_quant",
          "act_quant_codes",
          "act_quant_static",
          "act_quant_static_backward",
          "clip_search",
          "data_scale_many",
          "fake_quant",
          "fake_quant_backward",
          "fake_quant_backward_many",
          "fake_quant_codes",
          "fake_quant_many",
          "logit_losses",
          "rms_norm",
          "rms_norm_backward",
          "rotate",
          "stored_losses",
          "swiglu",
          "swiglu_backward",
          "top_k"};
}

}  // namespace satin::ops
