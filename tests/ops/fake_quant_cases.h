// One table of fake-quant cases for values, codes, gradients and devices, and their expected values: quantizers.md's
// formulas written with tensor operators in fp64, independent of the kernels. To cover something new, add a case.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "ops/ops.h"

namespace satin::test {

enum class Fill { kGaussian, kZeros, kDenormal, kHuge, kTies, kOutliers };

struct FakeQuantCase {
  ops::FakeQuantGrid grid;
  int64_t num_rows, num_columns;
  at::ScalarType dtype;
  Fill fill;
  std::string name() const;
};

/// Every method and bit width x group sizes x dtypes x storage formats, and every fill.
const std::vector<FakeQuantCase>& fake_quant_cases();

struct FakeQuantTensors {
  at::Tensor weight, grad, scale, zero_point;  ///< zero_point undefined where the grid has none
  std::optional<at::Tensor> optional_zero_point() const {
    return zero_point.defined() ? std::optional(zero_point) : std::nullopt;
  }
};
/// Fresh tensors, a function of the case and the seed: scales that clip and scales below the floor, zero points that
/// are not integers, halves, and beyond the codes.
FakeQuantTensors make_tensors(const FakeQuantCase& test_case, uint64_t seed);

struct Expected {
  at::Tensor weight, codes, stored, zero;         ///< exact values, in fp64 (codes and zero too)
  at::Tensor grad_weight, grad_scale, grad_zero;  ///< fp64
  at::Tensor sign_gradient;                       ///< |gradient times scale|, what OneBit's factor multiplies
  at::Tensor scale_magnitude;     ///< sum of the absolute terms of grad_scale: what rounding scales with
  at::Tensor quotient_magnitude;  ///< the same of their gradient times w / a: where quotients are rounded on their own
};
Expected expected_values(const FakeQuantCase& test_case, const FakeQuantTensors& tensors);
/// The mask is exact; OneBit's factor holds a tanh, which libraries round as they like.
void expect_weight_gradient(const FakeQuantCase& test_case, const at::Tensor& found, const Expected& expected);

/// Many small matrices of different shapes for the batched operators.
struct BatchCase {
  ops::FakeQuantBatch batch;
  std::vector<at::Tensor> grads;
};
BatchCase make_batch(ops::Grid kind, int bits, at::ScalarType dtype, int num_matrices, uint64_t seed);
/// Part i of a batch's results has the bits of the single operators.
void expect_part(const BatchCase& test_case, size_t i, const std::vector<at::Tensor>& weights,
                 const ops::FakeQuantGradientsBatch& gradients);

/// Kinds and bits, and weights of several shapes and group sizes, for scales that are read off the data: among them
/// groups of one sign and of zeros.
const std::vector<std::pair<ops::Grid, int>>& data_scale_grids();
ops::FakeQuantBatch make_data_scale_batch(ops::Grid kind, int bits, at::ScalarType dtype);

/// |a - b| / |b| in fp64 (0 for equal tensors, NaN where equal positions are NaN counts as equal).
double relative_error(const at::Tensor& found, const at::Tensor& expected);

}  // namespace satin::test
