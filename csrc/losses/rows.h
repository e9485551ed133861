// What every loss does with its rows: sums and gradients by weight.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>

namespace satin::losses {

/// sum_n weights_n rows_n over the rows with weight: rows [N], weights [N] -> 0-dim.
inline at::Tensor weighted_sum(const at::Tensor& rows, const at::Tensor& weights) {
  return at::where(weights != 0, rows * weights, at::scalar_tensor(0, rows.options())).sum();
}

/// grad += scale * weights * slope, row by row; slope [N, V] is finite.
inline void add_weighted(at::Tensor& grad, const at::Tensor& slope, const at::Tensor& weights, double scale) {
  grad.addcmul_(slope, weights.unsqueeze(1), scale);
}

}  // namespace satin::losses
