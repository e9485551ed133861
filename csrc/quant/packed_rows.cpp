#include "quant/packed_rows.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace satin::quant {
namespace {

using kernels::Grid;
using kernels::Rounding;

int64_t code_bits(const ops::FakeQuantGrid& grid) { return grid.bits <= 2 ? grid.bits : grid.bits <= 4 ? 4 : 8; }

at::ScalarType dtype_of(Rounding rounding, at::ScalarType exact) {
  return rounding == Rounding::kBFloat16 ? at::kBFloat16 : rounding == Rounding::kFloat16 ? at::kHalf : exact;
}

}  // namespace

int64_t constant_zero(const ops::FakeQuantGrid& grid) {
  if (grid.kind == Grid::kSymmetric) return int64_t{1} << (grid.bits - 1);
  return grid.kind == Grid::kSeq ? 3 : 1;
}

int64_t step_of(const ops::FakeQuantGrid& grid) {
  return grid.kind == Grid::kSeq || kernels::has_signs(grid.kind) ? 2 : 1;
}

PackedRows pack_rows(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& zero_point,
                     const ops::FakeQuantGrid& grid) {
  const at::NoGradGuard no_grad;
  const ops::FakeQuantCodes parts =
      ops::fake_quant_codes(weight, scale, zero_point.defined() ? std::optional(zero_point) : std::nullopt, grid);
  const int64_t w = code_bits(grid), per_byte = 8 / w, num_columns = weight.size(1);
  const int64_t num_bytes = (num_columns + per_byte - 1) / per_byte;
  at::Tensor codes = parts.codes;
  if (num_bytes * per_byte != num_columns) codes = at::constant_pad_nd(codes, {0, num_bytes * per_byte - num_columns});
  codes = codes.view({weight.size(0), num_bytes, per_byte});
  PackedRows rows{codes.select(2, 0).clone(), {}, {}};
  for (int64_t i = 1; i < per_byte; ++i) rows.codes.bitwise_or_(codes.select(2, i).bitwise_left_shift(w * i));
  rows.scales = parts.scale.to(dtype_of(grid.scale_rounding, parts.scale.scalar_type())).contiguous().view(at::kByte);
  if (grid.kind == Grid::kAsymmetric) rows.zeros = parts.zero.to(at::kByte);
  return rows;
}

at::Tensor unpack_rows(const PackedRows& rows, const ops::FakeQuantGrid& grid, int64_t num_columns,
                       at::ScalarType exact, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const int64_t num_rows = rows.codes.size(0), w = code_bits(grid), per_byte = 8 / w;
  at::Tensor codes = at::empty({num_rows, rows.codes.size(1), per_byte}, rows.codes.options());
  const int64_t mask = (int64_t{1} << w) - 1;
  for (int64_t i = 0; i < per_byte; ++i)
    codes.select(2, i).copy_(rows.codes.bitwise_right_shift(w * i).bitwise_and_(mask));
  const at::Tensor scales = rows.scales.view(dtype_of(grid.scale_rounding, exact)).to(exact);
  const int64_t num_groups = scales.size(1);
  SATIN_CHECK_EQ(num_columns % num_groups, 0, "columns in groups");
  at::Tensor levels =
      codes.view({num_rows, -1}).narrow(1, 0, num_columns).to(exact).reshape({num_rows, num_groups, -1});
  if (step_of(grid) != 1) levels.mul_(step_of(grid));
  if (rows.zeros.defined())
    levels.sub_(rows.zeros.to(exact).unsqueeze(2));
  else
    levels.sub_(constant_zero(grid));
  // Exact for a 16-bit scale, so that the one rounding is the dequantised format's. A zero weight is +0.
  levels.mul_(scales.unsqueeze(2)).add_(0);
  return levels.view({num_rows, num_columns}).to(dtype_of(grid.dequant_rounding, exact)).to(dtype);
}

}  // namespace satin::quant
