// What every loss does with its rows: weighted sums that a masked row (weight 0) cannot reach, not even with a NaN.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>

namespace satin::losses {

/// sum_n weights_n rows_n over the rows with weight: rows [N], weights [N] -> 0-dim.
inline at::Tensor weighted_sum(const at::Tensor& rows, const at::Tensor& weights) {
  return at::where(weights != 0, rows * weights, at::scalar_tensor(0, rows.options())).sum();
}

/// grad += scale * weights * slope, row by row; `slope` [N, V] is overwritten.
inline void add_weighted(at::Tensor& grad, at::Tensor slope, const at::Tensor& weights, double scale) {
  slope.mul_((weights * scale).unsqueeze(1)).masked_fill_((weights == 0).unsqueeze(1), 0);
  grad.add_(slope);
}

}  // namespace satin::losses
