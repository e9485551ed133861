#include "ops/checks.h"

#include <ATen/Functions.h>

#include <stdexcept>

#include "core/error.h"

namespace satin::ops {

kernels::FakeQuantGrid make_grid(int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding,
                                 int64_t dequant_rounding) {
  SATIN_CHECK(kind >= 0 && kind < kernels::kNumGrids, "unknown grid ", kind);
  SATIN_CHECK(scale_rounding >= 0 && scale_rounding <= 2, "unknown rounding ", scale_rounding);
  SATIN_CHECK(dequant_rounding >= 0 && dequant_rounding <= 2, "unknown rounding ", dequant_rounding);
  SATIN_CHECK(bits >= 0 && bits <= 64, "bits ", bits);
  return {static_cast<kernels::Grid>(kind), static_cast<int>(bits), group_size,
          static_cast<kernels::Rounding>(scale_rounding), static_cast<kernels::Rounding>(dequant_rounding)};
}

at::ScalarType arithmetic_dtype(const at::Tensor& weight) {
  return weight.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

kernels::Dtype kernel_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return kernels::Dtype::kFloat;
    case at::kBFloat16:
      return kernels::Dtype::kBFloat16;
    case at::kDouble:
      return kernels::Dtype::kDouble;
    default:
      TORCH_CHECK(false, "satin: expected float32, bfloat16 or float64, found ", dtype);
  }
}

kernels::Extent checked_extent(const kernels::FakeQuantGrid& grid, const at::Tensor& weight) {
  SATIN_CHECK_EQ(weight.dim(), 2, "dimensions of a weight");
  const at::ScalarType dtype = weight.scalar_type();
  SATIN_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble,
              "expected a float32, bfloat16 or float64 weight, found ", toString(dtype));
  const kernels::Extent extent{weight.size(0), weight.size(1)};
  try {
    kernels::check(grid, extent);
  } catch (const std::invalid_argument& error) {
    throw InternalError(error.what());
  }
  return extent;
}

FakeQuantInputs::FakeQuantInputs(const kernels::FakeQuantGrid& grid, const at::Tensor& weight, const at::Tensor& scale,
                                 const std::optional<at::Tensor>& zero_point)
    : grid(grid), extent(checked_extent(grid, weight)), weight(weight.contiguous()) {
  const at::ScalarType dtype = arithmetic_dtype(weight);
  const auto prepare = [&](const at::Tensor& tensor, const char* name) {
    const std::vector<int64_t> expected{extent.num_rows, extent.num_columns / grid.group_size};
    SATIN_CHECK(tensor.sizes() == expected, name, ": expected ", at::IntArrayRef(expected), ", found ", tensor.sizes());
    SATIN_CHECK_EQ(tensor.device(), weight.device(), name);
    return tensor.to(dtype).contiguous();
  };
  this->scale = prepare(scale, "scale");
  const bool has_zero_point = zero_point && zero_point->defined();
  SATIN_CHECK_EQ(has_zero_point, grid.kind == kernels::Grid::kAsymmetric, "a zero point, with asymmetric grids only");
  if (has_zero_point) this->zero_point = prepare(*zero_point, "zero_point");
}

DataScaleOutputs::DataScaleOutputs(const kernels::FakeQuantGrid& grid, at::TensorList weights,
                                   at::IntArrayRef group_sizes)
    : grid(grid) {
  SATIN_CHECK_EQ(group_sizes.size(), weights.size(), "group sizes and weights");
  for (size_t i = 0; i < weights.size(); ++i) {
    kernels::FakeQuantGrid own = grid;
    own.group_size = group_sizes[i];
    SATIN_CHECK_EQ(weights[i].scalar_type(), weights[0].scalar_type(), "dtypes of a batch");
    SATIN_CHECK_EQ(weights[i].device(), weights[0].device(), "devices of a batch");
    extents.push_back(checked_extent(own, weights[i]));
    this->weights.push_back(weights[i].contiguous());
    const auto options = weights[i].options().dtype(arithmetic_dtype(weights[i]));
    const std::vector<int64_t> shape{extents[i].num_rows, extents[i].num_columns / group_sizes[i]};
    scales.push_back(at::empty(shape, options));
    if (grid.kind == kernels::Grid::kAsymmetric) zero_points.push_back(at::empty(shape, options));
  }
}

ClipSearchTensors::ClipSearchTensors(const kernels::FakeQuantGrid& grid, const at::Tensor& weight,
                                     const std::optional<at::Tensor>& importance)
    : grid(grid), extent(checked_extent(grid, weight)), weight(weight.contiguous()) {
  const auto options = weight.options().dtype(arithmetic_dtype(weight));
  scale = at::empty({extent.num_rows, extent.num_columns / grid.group_size}, options);
  if (grid.kind == kernels::Grid::kAsymmetric) zero_point = at::empty_like(scale);
  if (!importance || !importance->defined()) return;
  SATIN_CHECK(importance->dim() == 1 && importance->size(0) == extent.num_columns, "importance: expected [",
              extent.num_columns, "], found ", importance->sizes());
  SATIN_CHECK_EQ(importance->device(), weight.device(), "importance");
  this->importance = importance->to(options.dtype()).contiguous();
  SATIN_CHECK((at::isfinite(this->importance) & (this->importance >= 0)).all().item<bool>(),
              "importance: expected finite values that are not negative");
}

std::vector<FakeQuantInputs> batch_inputs(kernels::FakeQuantGrid grid, at::TensorList weights, at::TensorList scales,
                                          at::TensorList zero_points, at::IntArrayRef group_sizes) {
  SATIN_CHECK_EQ(scales.size(), weights.size(), "scales and weights");
  SATIN_CHECK_EQ(group_sizes.size(), weights.size(), "group sizes and weights");
  SATIN_CHECK(zero_points.empty() || zero_points.size() == weights.size(), zero_points.size(), " zero points for ",
              weights.size(), " weights");
  std::vector<FakeQuantInputs> inputs;
  inputs.reserve(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    grid.group_size = group_sizes[i];
    inputs.emplace_back(grid, weights[i], scales[i],
                        zero_points.empty() ? std::nullopt : std::optional<at::Tensor>(zero_points[i]));
    SATIN_CHECK_EQ(weights[i].scalar_type(), weights[0].scalar_type(), "dtypes of a batch");
    SATIN_CHECK_EQ(weights[i].device(), weights[0].device(), "devices of a batch");
  }
  return inputs;
}

}  // namespace satin::ops
