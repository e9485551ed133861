// Rows of a quantized weight as they travel between processes: what a file would hold of them, a fraction of the bytes
// of the weights in the compute dtype.
#pragma once
#include "ops/ops.h"

namespace satin::quant {

/// All uint8, a row of the weight a row, so that processes gather them as they do weights (dist::RowGather).
struct PackedRows {
  at::Tensor codes;   ///< [n, ceil(K w / 8)]: w = 1, 2, 4 or 8 bits a code, the first in the lowest bits
  at::Tensor scales;  ///< [n, G s]: scales of s bytes, in the storage format (kNone: in their own)
  at::Tensor zeros;   ///< [n, G], or undefined where the grid has none of its own
};
/// level = step * code - zero (kernels/fake_quant.h): the step, and the zero of grids that have one for all.
int64_t step_of(const ops::FakeQuantGrid& grid);
int64_t constant_zero(const ops::FakeQuantGrid& grid);

/// weight [n, K], scale and zero_point as ops::fake_quant takes them.
PackedRows pack_rows(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& zero_point,
                     const ops::FakeQuantGrid& grid);

/// The weight [n, num_columns] in `dtype`: the bits of ops::fake_quant in it. `exact`: the dtype of scales whose grid
/// rounds none.
at::Tensor unpack_rows(const PackedRows& rows, const ops::FakeQuantGrid& grid, int64_t num_columns,
                       at::ScalarType exact, at::ScalarType dtype);

}  // namespace satin::quant
