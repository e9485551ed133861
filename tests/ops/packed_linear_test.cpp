// Packed weights as tensors: their values, products by both paths, and which path is taken.
#include "ops/packed_linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::ops {
namespace {

struct Parts {
  at::Tensor codes, scale, zero;
  int bits, step;
  at::ScalarType dequant_dtype;

  PackedWeight packed() const { return pack_weight(codes, scale, zero, bits, step, dequant_dtype); }
  /// scale * (step * code - zero) in fp64, not rounded.
  at::Tensor exact() const {
    const at::Tensor level =
        codes.view({codes.size(0), scale.size(1), -1}).to(at::kDouble) * step - zero.unsqueeze(2).to(at::kDouble);
    return (level * scale.unsqueeze(2).to(at::kDouble)).view(codes.sizes());
  }
};

Parts random_parts(int64_t rows, int64_t columns, int64_t groups, int bits, bool zeros, int step = 1,
                   at::ScalarType dtype = at::kBFloat16) {
  at::manual_seed(bits + rows);
  const int levels = 1 << bits;
  const at::Tensor zero = zeros ? at::randint(levels, {rows, groups}, at::kInt)
                                : at::full({rows, groups}, step == 2 ? levels - 1 : levels / 2, at::kInt);
  return {at::randint(levels, {rows, columns}, at::kByte),
          (at::rand({rows, groups}) * .1 + .01).to(dtype),
          zero,
          bits,
          step,
          dtype};
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

const std::vector<Parts>& all_parts() {
  static const std::vector<Parts> all = {
      random_parts(40, 192, 3, 1, false, 2),           random_parts(50, 100, 1, 2, true),
      random_parts(33, 256, 2, 2, false, 2),           random_parts(64, 320, 10, 3, true),
      random_parts(48, 128, 2, 4, true, 1, at::kHalf), random_parts(17, 64, 1, 8, false)};
  return all;
}

TEST(PackedLinear, HoldsTheWeightItWasMadeFrom) {
  for (const Parts& parts : all_parts()) {
    const PackedWeight packed = parts.packed();
    const at::Tensor expected = parts.exact().to(parts.dequant_dtype).to(at::kFloat);
    const int64_t rows = parts.codes.size(0);
    EXPECT_TRUE(dequantize_rows(packed, 0, rows, at::kFloat).equal(expected)) << parts.bits;
    EXPECT_TRUE(dequantize_rows(packed, 16, 17, at::kFloat).equal(expected.narrow(0, 16, 1))) << parts.bits;
    const at::Tensor some = at::tensor({3, 16, 0, 16, 12}, at::kLong);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16})
      EXPECT_TRUE(dequantize_rows(packed, some, dtype).equal(expected.index_select(0, some).to(dtype))) << parts.bits;
    EXPECT_EQ(packed.zeros.defined(), parts.zero.min().item<int>() != parts.zero.max().item<int>());
  }
}

TEST(PackedLinear, BothPathsMultiply) {
  for (const Parts& parts : all_parts()) {
    const PackedWeight packed = parts.packed();
    const at::Tensor exact = parts.exact(), rounded = exact.to(parts.dequant_dtype).to(at::kDouble);
    for (const int64_t num_rows : {1, 5, 70}) {
      const at::Tensor x = at::randn({num_rows, 1, exact.size(1)}), bias = at::randn({exact.size(0)});
      const auto expected = [&](const at::Tensor& weight) {
        return at::linear(x.to(at::kDouble), weight, bias.to(at::kDouble));
      };
      EXPECT_LT(relative_error(packed_linear(x, packed, bias, PackedPath::kPacked), expected(exact)), 1e-6);
      EXPECT_LT(relative_error(packed_linear(x, packed, bias, PackedPath::kFallback), expected(rounded)), 1e-6);
      EXPECT_LT(relative_error(packed_linear(x.to(at::kDouble), packed, bias.to(at::kDouble)), expected(rounded)),
                1e-14);
      const at::Tensor narrow = packed_linear(x.to(at::kBFloat16), packed, bias.to(at::kBFloat16), PackedPath::kPacked);
      EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
      EXPECT_LT(relative_error(narrow, expected(exact)), 1e-2);
      EXPECT_EQ(packed_linear(x, packed).sizes(), (std::vector<int64_t>{num_rows, 1, exact.size(0)}));
    }
  }
  const PackedWeight packed = all_parts()[0].packed();
  EXPECT_EQ(packed_linear(at::zeros({0, 192}), packed).size(0), 0);
  EXPECT_THROW(packed_linear(at::zeros({2, 191}), packed), InternalError);
  EXPECT_THROW(packed_linear(at::zeros({2, 192}, at::kDouble), packed, {}, PackedPath::kPacked), InternalError);
}

TEST(PackedLinear, PiecesAreTheWholeWeight) {
  const Parts parts = random_parts(600, 8192, 64, 2, true);  // 512 rows a piece
  const at::Tensor x = at::randn({3, 8192});
  const at::Tensor expected = at::linear(x.to(at::kDouble), parts.exact().to(at::kBFloat16).to(at::kDouble));
  EXPECT_LT(relative_error(packed_linear(x, parts.packed(), {}, PackedPath::kFallback), expected), 1e-6);
}

TEST(PackedLinear, ChoosesByWhatItIsGiven) {
  const auto path = [](const PackedProblem& problem) { return choose_packed_path(problem).path; };
  const PackedProblem cpu{.num_rows = 1, .num_columns = 100};
  EXPECT_EQ(path(cpu), PackedPath::kPacked);
  PackedProblem p = cpu;
  p.num_rows = 4096;
  EXPECT_EQ(path(p), PackedPath::kFallback);
  EXPECT_EQ(choose_packed_path(p, PackedPath::kPacked).path, PackedPath::kPacked);
  p = cpu;
  p.dtype = at::kDouble;
  EXPECT_EQ(path(p), PackedPath::kFallback);
  EXPECT_THROW(choose_packed_path(p, PackedPath::kPacked), InternalError);

  const PackedProblem cuda{.is_cuda = true,
                           .compute_capability = 90,
                           .num_rows = 16,
                           .num_columns = 4096,
                           .num_groups = 64,
                           .group_size = 64,
                           .dtype = at::kBFloat16};
  EXPECT_EQ(path(cuda), PackedPath::kPacked);
  EXPECT_EQ(choose_packed_path(cuda, PackedPath::kFallback).path, PackedPath::kFallback);
  const auto changed = [&](auto change) {
    PackedProblem other = cuda;
    change(other);
    return path(other);
  };
  EXPECT_EQ(changed([](auto& o) { o.scale_dtype = o.dequant_dtype = at::kHalf; }), PackedPath::kPacked);
  EXPECT_EQ(changed([](auto& o) { o.compute_capability = 80; }), PackedPath::kFallback);
  EXPECT_EQ(changed([](auto& o) { o.dtype = at::kFloat; }), PackedPath::kFallback);
  EXPECT_EQ(changed([](auto& o) { o.dtype = at::kHalf; }), PackedPath::kPacked);
  EXPECT_EQ(changed([](auto& o) { o.num_columns = 4098; }), PackedPath::kFallback);
  EXPECT_EQ(changed([](auto& o) { o.group_size = 96; }), PackedPath::kFallback);
  EXPECT_EQ(changed([](auto& o) { o.group_size = 4128, o.num_groups = 1; }), PackedPath::kPacked);
  EXPECT_NE(choose_packed_path(cpu).reason, "");

  const auto of_many = [&](auto change) { return changed([&](auto& o) { o.num_rows = 17, change(o); }); };
  EXPECT_EQ(of_many([](auto&) {}), PackedPath::kPacked);
  EXPECT_EQ(of_many([](auto& o) { o.num_rows = 8192; }), PackedPath::kPacked);
  EXPECT_EQ(of_many([](auto& o) { o.bits = 8; }), PackedPath::kPacked);
  EXPECT_EQ(of_many([](auto& o) { o.bits = 8, o.num_rows = 1025; }), PackedPath::kFallback);
  EXPECT_EQ(of_many([](auto& o) { o.num_rows = 8192, o.group_size = 32, o.num_groups = 128; }), PackedPath::kPacked);
  EXPECT_EQ(of_many([](auto& o) { o.group_size = 4128, o.num_groups = 1; }), PackedPath::kPacked);
  EXPECT_EQ(of_many([](auto& o) { o.dtype = at::kHalf; }), PackedPath::kFallback);
  EXPECT_EQ(of_many([](auto& o) { o.scale_dtype = at::kHalf; }), PackedPath::kFallback);
  EXPECT_EQ(of_many([](auto& o) { o.dequant_dtype = at::kFloat; }), PackedPath::kFallback);
  EXPECT_EQ(of_many([](auto& o) { o.num_columns = 4098; }), PackedPath::kFallback);
  EXPECT_EQ(of_many([](auto& o) { o.compute_capability = 100; }), PackedPath::kFallback);
}

}  // namespace
}  // namespace satin::ops
