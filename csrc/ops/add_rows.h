// Sums of rows by their ids: the gradient of an embedding's lookups (kernels/add_rows.h).
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::ops {

/// sums [V, H] += rows [N, H], made the sums' dtype, by ids [N] int64, 0 ... V - 1 (not checked). Repeats bit for bit
/// where the sums are float or double. Throws InternalError for shapes or devices that do not agree.
void add_rows(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& rows);

/// The kernel: ids that rise, and where their rows are.
void add_rows_on_cuda(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& order, const at::Tensor& rows);

}  // namespace satin::ops
