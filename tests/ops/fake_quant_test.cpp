// Values, codes and gradients of every case against the formulas in fp64, bit for bit where the contract is.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "ops/fake_quant_cases.h"

namespace satin::test {
namespace {

TEST(FakeQuant, WeightsAreTheFormulasBits) {
  for (const FakeQuantCase& test_case : fake_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const FakeQuantTensors in = make_tensors(test_case, 11);
    const at::Tensor found =
        ops::fake_quant(in.weight, in.scale, in.optional_zero_point(), test_case.grid, in.scale.scalar_type());
    ASSERT_TRUE(at::equal(found.to(at::kDouble), expected_values(test_case, in).weight));
    // In bfloat16: rounded to the stored format first, then converted.
    const at::Tensor brief =
        ops::fake_quant(in.weight, in.scale, in.optional_zero_point(), test_case.grid, at::kBFloat16);
    ASSERT_TRUE(at::equal(brief, found.to(at::kBFloat16)));
  }
}

TEST(FakeQuant, CodesAndStoredScalesGiveTheWeightsBack) {
  for (const FakeQuantCase& test_case : fake_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const FakeQuantTensors in = make_tensors(test_case, 12);
    const Expected expected = expected_values(test_case, in);
    const ops::FakeQuantCodes found =
        ops::fake_quant_codes(in.weight, in.scale, in.optional_zero_point(), test_case.grid);
    ASSERT_EQ(found.codes.scalar_type(), at::kByte);
    ASSERT_TRUE(at::equal(found.codes.to(at::kDouble), expected.codes));
    ASSERT_TRUE(at::equal(found.scale.to(at::kDouble), expected.stored));
    ASSERT_TRUE(at::equal(found.zero.to(at::kDouble), expected.zero));
  }
}

TEST(FakeQuant, GradientsAreTheFormulas) {
  for (const FakeQuantCase& test_case : fake_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    FakeQuantTensors in = make_tensors(test_case, 13);
    const Expected expected = expected_values(test_case, in);
    for (at::Tensor* tensor : {&in.weight, &in.scale, &in.zero_point})
      if (tensor->defined()) tensor->requires_grad_(true);
    ops::fake_quant(in.weight, in.scale, in.optional_zero_point(), test_case.grid, in.grad.scalar_type())
        .backward(in.grad);
    expect_weight_gradient(test_case, in.weight.grad(), expected);
    const bool wide = in.scale.scalar_type() == at::kDouble;
    const double tolerance = wide ? 1e-14 : 2e-6, half_unit = std::ldexp(1, wide ? -53 : -24);
    if (test_case.num_rows == 0) continue;
    const at::Tensor error = (in.scale.grad().to(at::kDouble) - expected.grad_scale).abs();
    const at::Tensor bound = tolerance * expected.scale_magnitude + half_unit * expected.quotient_magnitude;
    ASSERT_TRUE((error <= bound).all().item<bool>()) << (error / bound).max().item<double>();
    if (in.zero_point.defined()) {
      ASSERT_LE(relative_error(in.zero_point.grad(), expected.grad_zero), tolerance * 10);
    }
  }
}

TEST(FakeQuant, ABatchHasTheBitsOfItsParts) {
  // Every kind with matrices of several widths, group sizes and lengths; an empty one in the middle.
  for (const auto& [kind, bits] : std::vector<std::pair<ops::Grid, int>>{
           {ops::Grid::kSymmetric, 3}, {ops::Grid::kAsymmetric, 2}, {ops::Grid::kSeq, 2}, {ops::Grid::kBinary, 1}}) {
    BatchCase test_case = make_batch(kind, bits, at::kFloat, 70, 31);
    const auto weights = ops::fake_quant_many(test_case.batch, at::kBFloat16);
    const auto gradients = ops::fake_quant_backward_many(test_case.grads, test_case.batch);
    ASSERT_EQ(weights.size(), 70u);
    for (size_t i = 0; i < weights.size(); ++i) expect_part(test_case, i, weights, gradients);
  }
}

TEST(FakeQuant, AskedForGradientsOnlyWhereNeeded) {
  const FakeQuantCase& test_case = fake_quant_cases().front();
  FakeQuantTensors in = make_tensors(test_case, 14);
  in.scale.requires_grad_(true);
  ops::fake_quant(in.weight, in.scale, in.optional_zero_point(), test_case.grid, at::kFloat).sum().backward();
  EXPECT_TRUE(in.scale.grad().defined());
  EXPECT_FALSE(in.weight.grad().defined());
  const at::NoGradGuard no_grad;
  EXPECT_FALSE(
      ops::fake_quant(in.weight, in.scale, in.optional_zero_point(), test_case.grid, at::kFloat).requires_grad());
}

TEST(FakeQuant, MisfitsAreNamed) {
  const at::Tensor w = at::randn({2, 64}), scale = at::ones({2, 1});
  const ops::FakeQuantGrid grid{ops::Grid::kSymmetric, 2, 64};
  EXPECT_THROW(ops::fake_quant(w, at::ones({2, 2}), {}, grid, at::kFloat), InternalError);
  EXPECT_THROW(ops::fake_quant(w, scale, scale, grid, at::kFloat), InternalError);
  EXPECT_THROW(ops::fake_quant(w.to(at::kInt), scale, {}, grid, at::kFloat), InternalError);
  EXPECT_THROW(ops::fake_quant(w, at::ones({2, 1}), {}, {ops::Grid::kSymmetric, 2, 48}, at::kFloat), InternalError);
  EXPECT_THROW(ops::fake_quant(w, scale, {}, {ops::Grid::kAsymmetric, 2, 64}, at::kFloat), InternalError);
  EXPECT_THROW(ops::fake_quant(w[0], scale, {}, grid, at::kFloat), InternalError);
}

TEST(FakeQuant, StridedWeightsAndNaN) {
  const ops::FakeQuantGrid grid{ops::Grid::kSymmetric, 2, 64};
  const at::Tensor strided = at::randn({64, 4}).t(), scale = at::full({4, 1}, 0.5);
  EXPECT_TRUE(at::equal(ops::fake_quant(strided, scale, {}, grid, at::kFloat),
                        ops::fake_quant(strided.contiguous(), scale, {}, grid, at::kFloat)));
  at::Tensor w = at::randn({4, 64});
  w[1][3] = std::nan("");
  const at::Tensor out = ops::fake_quant(w, scale, {}, grid, at::kFloat);
  EXPECT_TRUE(at::equal(out.isnan(), w.isnan()));
}

}  // namespace
}  // namespace satin::test
