// Rows that travelled as codes and scales are the weight that fake_quant makes, to the bit, on every grid.
#include "quant/packed_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::quant {
namespace {

using kernels::Grid;
using kernels::Rounding;

struct PackedCase {
  Grid kind;
  int bits;
  int64_t group_size, num_columns;
  Rounding scale, dequant;
  int64_t bytes_a_row;  ///< of codes
};

TEST(PackedRows, AreTheWeightsOfFakeQuant) {
  using enum Rounding;
  const std::vector<PackedCase> cases = {{Grid::kSymmetric, 2, 32, 64, kBFloat16, kBFloat16, 16},
                                         {Grid::kSymmetric, 3, 64, 64, kFloat16, kFloat16, 32},
                                         {Grid::kSymmetric, 8, 64, 64, kNone, kNone, 64},
                                         {Grid::kAsymmetric, 2, 64, 128, kBFloat16, kBFloat16, 32},
                                         {Grid::kAsymmetric, 4, 35, 35, kBFloat16, kBFloat16, 18},
                                         {Grid::kAsymmetric, 5, 32, 64, kFloat16, kBFloat16, 64},
                                         {Grid::kAsymmetric, 8, 64, 64, kNone, kNone, 64},
                                         {Grid::kSeq, 2, 33, 33, kBFloat16, kBFloat16, 9},
                                         {Grid::kTernary, 2, 64, 64, kBFloat16, kBFloat16, 16},
                                         {Grid::kBinary, 1, 50, 50, kBFloat16, kBFloat16, 7},
                                         {Grid::kBitNet, 2, 64, 64, kBFloat16, kBFloat16, 16}};
  for (const PackedCase& c : cases) {
    for (const at::ScalarType master : {at::kFloat, at::kDouble}) {
      const ops::FakeQuantGrid grid{c.kind, c.bits, c.group_size, c.scale, c.dequant};
      const std::string name = cat("grid ", static_cast<int>(c.kind), ", ", c.bits, " bits, ", c.num_columns);
      const int64_t groups = c.num_columns / c.group_size;
      const at::Tensor weight = at::randn({5, c.num_columns}, master);
      weight[0].zero_();
      const at::Tensor scale = at::rand({5, groups}, master) + 0.05;
      const bool has_zero = c.kind == Grid::kAsymmetric;
      const at::Tensor zero = has_zero ? at::rand({5, groups}, master) * ((1 << c.bits) - 1) : at::Tensor();
      const PackedRows rows = pack_rows(weight, scale, zero, grid);
      EXPECT_EQ(rows.codes.sizes(), (std::vector<int64_t>{5, c.bytes_a_row})) << name;
      const int64_t scale_bytes = c.scale == kNone ? static_cast<int64_t>(c10::elementSize(master)) : 2;
      EXPECT_EQ(rows.scales.sizes(), (std::vector<int64_t>{5, groups * scale_bytes})) << name;
      EXPECT_EQ(rows.zeros.defined(), has_zero);
      for (const at::ScalarType dtype : {master, at::kBFloat16}) {
        if (dtype == at::kBFloat16 && master == at::kDouble) continue;
        ops::FakeQuantBatch batch;
        batch.grid = grid;
        batch.weights = {weight};
        batch.scales = {scale};
        if (has_zero) batch.zero_points = {zero};
        batch.group_sizes = {c.group_size};
        const at::Tensor expected = ops::fake_quant_many(batch, dtype)[0];
        const at::Tensor found = unpack_rows(rows, grid, c.num_columns, master, dtype);
        EXPECT_EQ(found.scalar_type(), dtype);
        EXPECT_TRUE(at::equal(found, expected)) << name << " " << dtype;
        EXPECT_TRUE(at::equal(found.signbit(), expected.signbit())) << name << " " << dtype;
      }
    }
  }
}

}  // namespace
}  // namespace satin::quant
