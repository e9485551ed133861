// Activations on the CPU: values and codes bit for bit against the formulas and PyTorch's e4m3, gradients of the static
// form against finite differences.
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "ops/act_quant_cases.h"

namespace satin::test {
namespace {
using ops::ActivationFormat;

constexpr ActivationFormat kFormats[] = {ActivationFormat::kInt8, ActivationFormat::kInt4, ActivationFormat::kFloat8};

TEST(ActQuant, IsTheFormula) {
  for (const ActQuantCase& test_case : act_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const ActQuantTensors in = make_activations(test_case, 61);
    const ExpectedActivations expected = expected_activations(test_case.format, in.x, {});
    ASSERT_TRUE(same(ops::act_quant(in.x, test_case.format), expected.value));
    const ops::ActCodes found = ops::act_quant_codes(in.x, test_case.format);
    ASSERT_EQ(found.codes.scalar_type(),
              test_case.format == ActivationFormat::kFloat8 ? at::kFloat8_e4m3fn : at::kChar);
    ASSERT_TRUE(at::equal(found.codes.to(at::kFloat).to(at::kDouble), expected.level));
    ASSERT_TRUE(same(found.scale, expected.scale));
  }
}

TEST(ActQuant, StaticIsTheFormula) {
  for (const ActQuantCase& test_case : act_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const ActQuantTensors in = make_activations(test_case, 62);
    ASSERT_TRUE(same(ops::act_quant_static(in.x, in.scale, test_case.format),
                     expected_activations(test_case.format, in.x, in.scale).value));
  }
}

TEST(ActQuant, EveryFloat8NumberTieAndNeighbour) {
  const at::Tensor numbers = at::arange(0, 0x7f, at::kByte).view(at::kFloat8_e4m3fn).to(at::kDouble);
  const at::Tensor ties = (numbers.slice(0, 1) + numbers.slice(0, 0, -1)) / 2;
  at::Tensor x = at::cat({numbers, ties, at::full({1}, 460.0, at::kDouble), at::full({1}, 1e30, at::kDouble)});
  x = at::cat({x, -x});
  for (at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    at::Tensor wide = x.to(dtype);
    const at::Tensor infinity = at::full_like(wide, std::numeric_limits<double>::infinity());
    wide = at::cat({wide, at::nextafter(wide.to(at::kFloat), infinity.to(at::kFloat)).to(dtype),
                    at::nextafter(wide.to(at::kFloat), -infinity.to(at::kFloat)).to(dtype)});
    const at::Tensor expected = wide.clamp(-448, 448).to(at::kFloat8_e4m3fn).to(dtype);
    EXPECT_TRUE(at::equal(ops::act_quant_static(wide, at::ones({1}, dtype), ActivationFormat::kFloat8), expected));
    // And the codes' bytes, where the scale is exactly 1.
    const at::Tensor row = wide.clamp(-448, 448);
    const ops::ActCodes codes = ops::act_quant_codes(row, ActivationFormat::kFloat8);
    ASSERT_EQ(codes.scale.item<double>(), 1.0);
    const at::Tensor bytes = row.to(at::kFloat8_e4m3fn).view(at::kByte);
    EXPECT_TRUE(at::equal(codes.codes.view(at::kByte), at::where(bytes == 0x80, at::zeros_like(bytes), bytes)));
  }
}

TEST(ActQuant, AnyShapeAndStrides) {
  const at::Tensor x = at::randn({2, 5, 3, 64});
  for (const ActivationFormat format : kFormats) {
    const at::Tensor flat = ops::act_quant(x.reshape({-1, 64}), format).view(x.sizes());
    EXPECT_TRUE(at::equal(ops::act_quant(x, format), flat));
    EXPECT_TRUE(at::equal(ops::act_quant(x.transpose(1, 2), format), flat.transpose(1, 2)));
    EXPECT_EQ(ops::act_quant_codes(x, format).scale.sizes(), at::IntArrayRef({2, 5, 3}));
    EXPECT_EQ(ops::act_quant_codes(x[0][0][0], format).scale.dim(), 0);
  }
}

TEST(ActQuant, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::randn({2, 8});
  EXPECT_THROW(ops::act_quant(x, static_cast<ActivationFormat>(3)), InternalError);
  EXPECT_THROW(ops::act_quant(x.to(at::kHalf), ActivationFormat::kInt8), InternalError);
  EXPECT_THROW(ops::act_quant(at::randn({}), ActivationFormat::kInt8), InternalError);
  EXPECT_THROW(ops::act_quant_static(x, at::ones({2}), ActivationFormat::kInt8), InternalError);
  EXPECT_THROW(ops::act_quant_static_backward(at::randn({8, 2}), x, at::ones({1}), ActivationFormat::kInt8),
               InternalError);
}

TEST(ActQuant, FrozenRoundingIsRepeatedCallByCall) {
  const at::Tensor a = at::randn({3, 8}, at::kDouble), b = at::randn({2, 4}, at::kDouble),
                   shift = at::randn({3, 8}, at::kDouble);
  const at::Tensor rounded = ops::act_quant(a, ActivationFormat::kInt4);
  {
    ops::FrozenRounding frozen;
    EXPECT_TRUE(at::equal(ops::act_quant(a, ActivationFormat::kInt4), rounded));
    const at::Tensor rounded_b = ops::act_quant(b, ActivationFormat::kInt8);
    for (int i = 0; i < 2; ++i) {
      frozen.replay();
      EXPECT_TRUE(at::allclose(ops::act_quant(a + shift, ActivationFormat::kInt4), rounded + shift, 1e-12, 1e-12));
      EXPECT_TRUE(at::allclose(ops::act_quant(b, ActivationFormat::kInt8), rounded_b, 1e-12, 1e-12));
    }
    EXPECT_THROW(ops::act_quant(b, ActivationFormat::kInt8), InternalError) << "one call too many";
    EXPECT_THROW(ops::act_quant_static(a, at::ones({1}, at::kDouble), ActivationFormat::kInt8), InternalError);
  }
  EXPECT_TRUE(at::equal(ops::act_quant(a, ActivationFormat::kInt4), rounded));
}

TEST(ActQuantGradient, DynamicIsTheIdentity) {
  for (const ActivationFormat format : kFormats) {
    at::Tensor x = at::randn({3, 2, 64}).set_requires_grad(true);
    const at::Tensor grad = at::randn({3, 2, 64});
    ops::act_quant(x, format).backward(grad);
    EXPECT_TRUE(at::equal(x.grad(), grad));
  }
}

TEST(ActQuantGradient, StaticIsTheFormula) {
  for (const ActQuantCase& test_case : act_quant_cases()) {
    if (test_case.fill == RowFill::kDamaged) continue;
    SCOPED_TRACE(test_case.name());
    const ActQuantTensors in = make_activations(test_case, 63);
    const auto found = ops::act_quant_static_backward(in.grad, in.x, in.scale, test_case.format);
    if (in.x.numel() == 0) {
      ASSERT_EQ(found.scale.item<double>(), 0);
      continue;
    }
    const ExpectedActivationGradients expected = expected_gradients(test_case.format, in);
    ASSERT_TRUE(at::equal(found.x.to(at::kDouble), expected.x));
    const double tolerance = test_case.dtype == at::kDouble ? 1e-13 : 1e-5;
    ASSERT_NEAR(found.scale.item<double>(), expected.scale.item<double>(),
                tolerance * expected.scale_magnitude.item<double>());
  }
}

// x -> x + (level - u) scale with frozen residuals inside the range, the end level outside: finite differences of the
// step function itself say nothing.
TEST(ActQuantGradient, StaticEqualsDifferencesOfTheFrozenSurrogate) {
  at::manual_seed(64);
  for (const ActivationFormat format : kFormats) {
    SCOPED_TRACE(static_cast<int>(format));
    const double top = kernels::top(format);
    at::Tensor x = at::randn({3, 7}, at::kDouble).set_requires_grad(true);
    at::Tensor scale = at::full({1}, 0.8 / top, at::kDouble).set_requires_grad(true);
    const at::Tensor grad = at::randn({3, 7}, at::kDouble);
    const at::Tensor value = ops::act_quant_static(x, scale, format);
    value.backward(grad);

    const at::Tensor x0 = x.detach().clone(), s0 = scale.detach().clone();
    const at::Tensor level = value.detach() / s0, inside = (x0 / s0).abs() <= top, residual = level - x0 / s0;
    EXPECT_GT(inside.sum().item<int>(), 3);
    EXPECT_LT(inside.sum().item<int>(), 18);
    const auto surrogate = [&] {
      return (grad * s0 * at::where(inside, x0 / s0 + residual, level)).sum().item<double>();
    };
    const auto difference = [&](const at::Tensor& place, double step) {
      const double at_point = place.item<double>();
      place.fill_(at_point + step);
      const double above = surrogate();
      place.fill_(at_point - step);
      const double below = surrogate();
      place.fill_(at_point);
      return (above - below) / (2 * step);
    };
    for (int64_t i = 0; i < x0.numel(); ++i)
      EXPECT_NEAR(x.grad().view(-1)[i].item<double>(), difference(x0.view(-1)[i], 1e-6), 1e-7) << i;
    const double multiplier = 1 / std::sqrt(x.size(-1) * (format == ActivationFormat::kFloat8 ? 1 : top));
    const double expected = multiplier * difference(s0[0], 1e-3 * s0.item<double>());
    EXPECT_NEAR(scale.grad().item<double>(), expected, 1e-7 * std::max(1.0, std::fabs(expected)));
  }
}

TEST(ActQuantGradient, DamagedActivationsDamageTheScale) {
  at::Tensor x = at::randn({4, 64});
  x[1][2] = std::nan("");
  const auto found = ops::act_quant_static_backward(at::ones_like(x), x, at::ones({1}), ActivationFormat::kInt8);
  EXPECT_TRUE(std::isnan(found.scale.item<float>()));
}

}  // namespace
}  // namespace satin::test
