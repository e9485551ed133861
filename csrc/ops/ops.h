// Satin's operators, typed. Each is also in PyTorch's dispatcher as satin::<name>.
//
// Shapes   weight [N, K] (out, in); scale, zero_point [N, G], G = K / grid.group_size (per row: group_size = K).
// Dtypes   weight float | bfloat16 | double; scale and zero_point float (double with a double weight).
// Errors   UserError never; InternalError for shapes, dtypes or devices that do not agree (callers check user input).
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/fake_quant.h"

namespace satin::ops {

using kernels::FakeQuantGrid;
using kernels::Grid;
using kernels::Rounding;

/// The weight that a quantized layer multiplies with, [N, K] in `dtype`: rounded to grid.dequant_rounding, then
/// converted. Differentiable with respect to weight, scale and zero_point (straight-through estimator). zero_point is
/// required by asymmetric grids and refused by others. Source: kernels/fake_quant.h.
at::Tensor fake_quant(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                      const FakeQuantGrid& grid, at::ScalarType dtype);

struct FakeQuantGradients {
  at::Tensor weight;      ///< [N, K] in weight's dtype
  at::Tensor scale;       ///< [N, G] in scale's dtype
  at::Tensor zero_point;  ///< [N, G]; undefined where the grid has none
};
/// Gradients of fake_quant for an incoming gradient [N, K].
FakeQuantGradients fake_quant_backward(const at::Tensor& grad, const at::Tensor& weight, const at::Tensor& scale,
                                       const std::optional<at::Tensor>& zero_point, const FakeQuantGrid& grid);

/// A batch of weights with one kind of grid; on CUDA up to 256 share a launch. Each has its own group size, which
/// replaces the grid's.
struct FakeQuantBatch {
  FakeQuantGrid grid;
  std::vector<at::Tensor> weights;      ///< one dtype
  std::vector<at::Tensor> scales;       ///< one a weight
  std::vector<at::Tensor> zero_points;  ///< one a weight, or empty where the grid has none
  std::vector<int64_t> group_sizes;     ///< one a weight
};
/// fake_quant of every weight, the same bits. Not differentiable: see fake_quant_backward_many.
std::vector<at::Tensor> fake_quant_many(const FakeQuantBatch& batch, at::ScalarType dtype);

struct FakeQuantGradientsBatch {
  std::vector<at::Tensor> weights, scales;
  std::vector<at::Tensor> zero_points;  ///< empty where the grid has none
};
/// fake_quant_backward of every weight; the gradients have one dtype.
FakeQuantGradientsBatch fake_quant_backward_many(const std::vector<at::Tensor>& grads, const FakeQuantBatch& batch);

struct FakeQuantCodes {
  at::Tensor codes;  ///< [N, K] uint8 in 0 .. 2^bits - 1
  at::Tensor scale;  ///< [N, G]: what a file stores (rounded to grid.scale_rounding), in scale's dtype
  at::Tensor zero;   ///< [N, G] int32; level = step * code - zero, step 2 for SEQ and 1 otherwise
};
/// fake_quant taken apart: weight = round_dequant(scale * level), the same bits.
FakeQuantCodes fake_quant_codes(const at::Tensor& weight, const at::Tensor& scale,
                                const std::optional<at::Tensor>& zero_point, const FakeQuantGrid& grid);

struct DataScales {
  std::vector<at::Tensor> scales;       ///< [N, G] float (double with double weights), one a weight
  std::vector<at::Tensor> zero_points;  ///< [N, G] likewise; empty where the grid has none
};
/// Scales and zero points read off each group (kernels/data_scale.h). Only the batch's grid, weights and group sizes
/// are read.
DataScales data_scale_many(const FakeQuantBatch& batch);

struct ClipSearchResult {
  at::Tensor scale;       ///< [N, G] float (double with a double weight)
  at::Tensor zero_point;  ///< [N, G]; undefined where the grid has none
};
/// Per group the scale (and zero point) of least squared error on the ladder of kernels/clip_search.h, which is the one
/// that a forward divides by. importance [K], finite and not negative, weights the errors of the input columns (any
/// floating dtype, weight's device); none: all one.
ClipSearchResult clip_search(const at::Tensor& weight, const FakeQuantGrid& grid,
                             const std::optional<at::Tensor>& importance = {});

/// The scale that a forward with this raw scale divides by: the stored scale over its unit (floor and storage rounding
/// included). Not an operator of its own: fake_quant_codes of zeros.
at::Tensor effective_scale(const at::Tensor& scale, const FakeQuantGrid& grid);

/// Names of the operators that have a wrapper here, without "satin::".
std::vector<std::string> wrapped_operators();

}  // namespace satin::ops
