// Packed weights on CUDA: rows bit for bit those of the CPU, products by both paths against fp64.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "core/error.h"
#include "ops/a8_kernels.h"
#include "ops/decode_kernels.h"
#include "ops/device.h"
#include "ops/packed_linear.h"

namespace satin::ops {
namespace {

#define SATIN_NEEDS_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device and a build with CUDA"

PackedWeight random_weight(int64_t rows, int64_t columns, int64_t groups, int bits, bool zeros, int step = 1) {
  at::manual_seed(bits);
  const int constant = step == 2 ? (1 << bits) - 1 : 1 << (bits - 1);
  const at::Tensor zero =
      zeros ? at::randint(1 << bits, {rows, groups}, at::kInt) : at::full({rows, groups}, constant, at::kInt);
  return pack_weight(at::randint(1 << bits, {rows, columns}, at::kByte),
                     (at::rand({rows, groups}) * .1 + .01).to(at::kBFloat16), zero, bits, step, at::kBFloat16);
}

TEST(PackedLinearGpu, HasTheCpusRows) {
  SATIN_NEEDS_GPU();
  for (const int bits : {1, 2, 3, 4, 8}) {
    const PackedWeight weight = random_weight(100, 256, 4, bits, bits > 1), moved = weight.to(at::kCUDA);
    EXPECT_TRUE(dequantize_rows(moved, 16, 100, at::kFloat).cpu().equal(dequantize_rows(weight, 16, 100, at::kFloat)));
    const at::Tensor some = at::tensor({99, 3, 3}, at::kLong);
    EXPECT_TRUE(
        dequantize_rows(moved, some.cuda(), at::kBFloat16).cpu().equal(dequantize_rows(weight, some, at::kBFloat16)));
  }
}

TEST(PackedLinearGpu, Multiplies) {
  SATIN_NEEDS_GPU();
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int64_t num_rows : {1, 4, 7, 16, 40})
      for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
        SCOPED_TRACE(testing::Message() << bits << " bits, " << num_rows << " rows, " << dtype);
        const PackedWeight weight = random_weight(200, 512, 8, bits, bits > 1), moved = weight.to(at::kCUDA);
        const at::Tensor x = at::randn({num_rows, 512}).to(dtype), bias = at::randn({200}).to(dtype);
        const at::Tensor expected =
            at::linear(x.to(at::kDouble), dequantize_rows(weight, 0, 200, at::kDouble), bias.to(at::kDouble));
        const at::Tensor found = packed_linear(x.cuda(), moved, bias.cuda());
        EXPECT_EQ(found.scalar_type(), dtype);
        const double error = ((found.cpu().to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
        EXPECT_LT(error, dtype == at::kFloat ? 1e-5 : 1e-2);
        EXPECT_TRUE(packed_linear(x.cuda(), moved, bias.cuda()).equal(found)) << "the same bits every time";
      }
}

TEST(PackedLinearGpu, MultipliesWithEveryTile) {
  SATIN_NEEDS_GPU();
  const at::Device device(at::kCUDA, 0);
  if (compute_capability(device) != 90) GTEST_SKIP() << "needs sm_90";
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int64_t groups : {1, 4, 8, 16})
      for (const int64_t num_rows : {1, 4, 5, 16}) {
        const PackedWeight weight = random_weight(200, 512, groups, bits, bits > 1), moved = weight.to(device);
        const at::Tensor x = at::randn({num_rows, 512}).to(at::kBFloat16);
        const at::Tensor expected = at::mm(x.to(at::kDouble), dequantize_rows(weight, 0, 200, at::kDouble).t());
        for (const kernels::DecodeTile& tile : kernels::kDecodeTiles) {
          if (!kernels::has_decode_tile(moved.shape, num_rows, /*gated=*/false, tile)) continue;
          SCOPED_TRACE(testing::Message() << bits << " bits, " << groups << " groups, " << num_rows << " rows, "
                                          << tile.row_bricks << 'x' << tile.warps);
          const at::Tensor found = packed_decode(x.to(device), moved, {}, tile);
          EXPECT_LT(((found.cpu().to(at::kDouble) - expected).norm() / expected.norm()).item<double>(), 1e-2);
          EXPECT_TRUE(packed_decode(x.to(device), moved, {}, tile).equal(found)) << "the same bits every time";
        }
      }
}

TEST(PackedLinearGpu, MultipliesARowOfManyColumns) {
  SATIN_NEEDS_GPU();
  const at::Device device(at::kCUDA, 0);
  if (compute_capability(device) != 90) GTEST_SKIP() << "needs sm_90";
  constexpr int64_t kRows = 200;
  for (const int bits : {1, 2, 3, 4})
    for (const int64_t bricks : {17, 37, 70})
      for (const bool zeros : {false, true})
        for (const int64_t group_size : {int64_t{128}, 128 * bricks}) {
          const int64_t columns = 128 * bricks;
          const PackedWeight weight = random_weight(kRows, columns, columns / group_size, bits, zeros && bits > 1),
                             moved = weight.to(device);
          const at::Tensor x = at::randn({1, columns}).to(at::kBFloat16);
          const at::Tensor expected = at::mm(x.to(at::kDouble), dequantize_rows(weight, 0, kRows, at::kDouble).t());
          for (const int row_bricks : {1, 2, 3, 8, 13}) {
            SCOPED_TRACE(testing::Message() << bits << " bits, " << bricks << " bricks, groups of " << group_size
                                            << (zeros ? ", zeros, " : ", ") << row_bricks << " row bricks");
            const at::Tensor found = packed_decode(x.to(device), moved, {}, {row_bricks, 16});
            EXPECT_LT(((found.cpu().to(at::kDouble) - expected).norm() / expected.norm()).item<double>(), 1e-2);
            EXPECT_TRUE(packed_decode(x.to(device), moved, {}, {row_bricks, 16}).equal(found));
          }
        }
}

/// Weights of the kernel for many rows: f(weight, name).
template <class Function>
void for_many_row_weights(int64_t rows, int64_t columns, const Function& f) {
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int64_t size : {int64_t{32}, int64_t{64}, int64_t{128}, int64_t{256}, columns}) {
      if (columns % size != 0) continue;
      for (const bool zeros : {false, true})
        for (const int step : {1, 2}) {
          if (step == 2 && (bits > 2 || zeros)) continue;
          f(random_weight(rows, columns, columns / size, bits, zeros, step),
            cat(bits, " bits, [", rows, ", ", columns, "], groups of ", size, zeros ? ", zeros" : "", ", step ", step));
        }
    }
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

TEST(PackedLinearGpu, MultipliesManyRows) {
  SATIN_NEEDS_GPU();
  const at::Device device(at::kCUDA, 0);
  if (compute_capability(device) != 90) GTEST_SKIP() << "needs sm_90";
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{200, 520}, {200, 1088}, {1024, 1024}}) {
    const at::Tensor all = at::randn({1000, columns}).to(at::kBFloat16).to(device),
                     bias = at::randn({rows}).to(at::kBFloat16).to(device);
    for_many_row_weights(rows, columns, [&](const PackedWeight& weight, const std::string& name) {
      SCOPED_TRACE(name);
      const PackedWeight moved = weight.to(device);
      const at::Tensor expected = at::linear(
          all.to(at::kDouble), dequantize_rows(weight, 0, rows, at::kDouble).to(device), bias.to(at::kDouble));
      for (const int64_t num_rows : {17, 64, 100, 300, 1000}) {
        const at::Tensor x = all.narrow(0, 0, num_rows);
        const at::Tensor found = packed_linear(x, moved, bias, PackedPath::kPacked);
        EXPECT_LT(relative_error(found, expected.narrow(0, 0, num_rows)), 4e-3) << num_rows << " rows";
        for (int i = 0; i < 2; ++i)
          EXPECT_TRUE(packed_linear(x, moved, bias, PackedPath::kPacked).equal(found)) << "the same bits every time";
      }
    });
  }
}

/// A row of the identity takes a column of the weight out, as it was multiplied with.
TEST(PackedLinearGpu, MultipliesManyRowsWithTheWeightItselfInEveryTile) {
  SATIN_NEEDS_GPU();
  const at::Device device(at::kCUDA, 0);
  if (compute_capability(device) != 90) GTEST_SKIP() << "needs sm_90";
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{203, 520}, {200, 1088}, {384, 1024}}) {
    const at::Tensor identity = at::eye(columns, at::TensorOptions().device(device)).to(at::kBFloat16);
    const at::Tensor x = at::randn({columns, columns}).to(at::kBFloat16).to(device);
    for_many_row_weights(rows, columns, [&](const PackedWeight& weight, const std::string& name) {
      const PackedWeight moved = weight.to(device);
      const at::Tensor expected = dequantize_rows(weight, 0, rows, at::kBFloat16).to(device);
      const at::Tensor product = at::mm(x.to(at::kDouble), expected.to(at::kDouble).t());
      for (kernels::A16Tile tile : kernels::kA16Tiles)
        for (tile.splits = 1; tile.splits <= 2; ++tile.splits) {
          SCOPED_TRACE(cat(name, ", a tile of ", tile.rows, " x ", tile.tokens, " split ", tile.splits, " times"));
          EXPECT_TRUE(packed_a16(identity, moved, {}, tile).t().equal(expected));
          EXPECT_LT(relative_error(packed_a16(x, moved, {}, tile), product), 4e-3);
        }
    });
  }
}

}  // namespace
}  // namespace satin::ops
