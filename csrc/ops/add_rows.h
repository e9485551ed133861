// Sums of rows by their ids: the gradient of an embedding's lookups (kernels/add_rows.h).
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::ops {

/// sums [V, H] += rows [N, H] by ids [N] int64, in the sums' dtype. The same bits in every run. Throws InternalError
/// for shapes, dtypes or devices that do not agree.
void add_rows(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& rows);

/// The kernel: ids that rise, and where their rows are.
void add_rows_on_cuda(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& order, const at::Tensor& rows);

}  // namespace satin::ops
