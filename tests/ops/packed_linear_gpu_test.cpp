// Packed weights on CUDA: rows bit for bit those of the CPU, products by both paths against fp64.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "ops/decode_kernels.h"
#include "ops/device.h"
#include "ops/packed_linear.h"

namespace satin::ops {
namespace {

#define SATIN_NEEDS_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device and a build with CUDA"

PackedWeight random_weight(int64_t rows, int64_t columns, int64_t groups, int bits, bool zeros) {
  at::manual_seed(bits);
  const at::Tensor zero =
      zeros ? at::randint(1 << bits, {rows, groups}, at::kInt) : at::full({rows, groups}, 1 << (bits - 1), at::kInt);
  return pack_weight(at::randint(1 << bits, {rows, columns}, at::kByte),
                     (at::rand({rows, groups}) * .1 + .01).to(at::kBFloat16), zero, bits, 1, at::kBFloat16);
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
        for (int i = 0; i < kernels::num_decode_tiles(moved.shape, num_rows); ++i) {
          const kernels::DecodeTile tile = kernels::kDecodeTiles[i];
          SCOPED_TRACE(testing::Message() << bits << " bits, " << groups << " groups, " << num_rows << " rows, "
                                          << tile.row_bricks << 'x' << tile.warps);
          const at::Tensor found = packed_decode(x.to(device), moved, {}, tile);
          EXPECT_LT(((found.cpu().to(at::kDouble) - expected).norm() / expected.norm()).item<double>(), 1e-2);
          EXPECT_TRUE(packed_decode(x.to(device), moved, {}, tile).equal(found)) << "the same bits every time";
        }
      }
}

}  // namespace
}  // namespace satin::ops
