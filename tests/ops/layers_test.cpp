// The fused layers on the CPU against the same formulas composed of PyTorch's operators, with first and second
// derivatives by autograd of the composition.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "ops/layers_cases.h"
#include "support/test_support.h"

namespace satin::test {
namespace {

constexpr double kEps = 1e-3;

at::Tensor leaf(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

double error(const at::Tensor& found, const at::Tensor& expected) {
  if (expected.numel() == 0) return found.sizes() == expected.sizes() ? 0 : 1;
  return ((found - expected).norm() / (expected.norm() + 1e-300)).item<double>();
}

TEST(Layers, RmsNormIsTheFormula) {
  for (const auto& [rows, columns] : norm_shapes())
    for (const bool with_delta : {false, true}) {
      SCOPED_TRACE(cat("[", rows, ", ", columns, "] ", with_delta));
      const NormTensors in = make_norm(rows, columns, 1);
      const at::Tensor x = leaf(in.x), delta = leaf(in.delta), weight = leaf(in.weight);
      const auto result = ops::rms_norm(x, with_delta ? delta : at::Tensor(), weight, kEps, at::kDouble);
      const at::Tensor expected_sum = with_delta ? x + delta : x + 0;
      const at::Tensor expected = composed_norm(expected_sum, weight, kEps);
      EXPECT_TRUE(at::equal(result.sum, expected_sum));
      EXPECT_LT(error(result.y, expected), 1e-14);

      // The sum is read by others too: by a square, so that its gradient depends on where it is.
      const auto loss = [&](const at::Tensor& y, const at::Tensor& sum) {
        return (y * in.grad).sum() + (sum.square() * in.grad_later).sum();
      };
      std::vector<at::Tensor> inputs = {x, weight};
      if (with_delta) inputs.push_back(delta);
      const auto found = torch::autograd::grad({loss(result.y, result.sum)}, inputs);
      const auto wanted = torch::autograd::grad({loss(expected, expected_sum)}, inputs);
      for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(error(found[i], wanted[i]), 1e-12) << i;
    }
}

TEST(Layers, GradientsOfGradients) {
  const NormTensors in = make_norm(5, 24, 2);
  const at::Tensor x = leaf(in.x), delta = leaf(in.delta), weight = leaf(in.weight);
  const auto second = [&](const at::Tensor& y, const at::Tensor& sum) {
    const std::vector<at::Tensor> inputs = {x, delta, weight};
    const auto first = torch::autograd::grad({(y.square() * in.grad).sum() + (sum * in.grad_later).sum()}, inputs, {},
                                             /*retain_graph=*/true, /*create_graph=*/true);
    return torch::autograd::grad({first[0].square().sum() + first[1].sin().sum() + first[2].square().sum()}, inputs);
  };
  const auto result = ops::rms_norm(x, delta, weight, kEps, at::kDouble);
  const auto found = second(result.y, result.sum);
  const auto wanted = second(composed_norm(x + delta, weight, kEps), x + delta);
  for (size_t i = 0; i < 3; ++i) EXPECT_LT(error(found[i], wanted[i]), 1e-11) << i;

  const auto of_pair = [&](const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& f) {
    const auto first = torch::autograd::grad({(f(x, delta).square() * in.grad).sum()}, {x, delta}, {}, true, true);
    return torch::autograd::grad({first[0].square().sum() + first[1].sin().sum()}, {x, delta});
  };
  const auto gated = of_pair(ops::swiglu), gated_wanted = of_pair(composed_swiglu);
  for (size_t i = 0; i < 2; ++i) EXPECT_LT(error(gated[i], gated_wanted[i]), 1e-11) << i;
}

TEST(Layers, SwigluIsTheFormula) {
  for (int64_t n : {0, 1, 7, 64, 100003}) {
    at::manual_seed(3);
    const at::Tensor grad = at::randn({n}, at::kDouble);
    const at::Tensor gate = leaf(at::randn({n}, at::kDouble) * 8), up = leaf(at::randn({n}, at::kDouble));
    const at::Tensor y = ops::swiglu(gate, up), expected = composed_swiglu(gate, up);
    EXPECT_LT(error(y, expected), 1e-14);
    const auto found = torch::autograd::grad({(y * grad).sum()}, {gate, up});
    const auto wanted = torch::autograd::grad({(expected * grad).sum()}, {gate, up});
    for (size_t i = 0; i < 2; ++i) EXPECT_LT(error(found[i], wanted[i]), 1e-12);
  }
  // Ends where an exponential overflows.
  const at::Tensor ends = at::tensor({-1e30f, -200.0f, -90.0f, 0.0f, 90.0f, 1e30f}), one = at::ones_like(ends);
  EXPECT_TRUE(at::allclose(ops::swiglu(ends, one), at::silu(ends), 1e-6, 1e-37));
  const auto slopes = ops::swiglu_backward(one, ends, one);
  EXPECT_TRUE(at::allclose(slopes.gate, at::tensor({0.0f, 0.0f, 0.0f, 0.5f, 1.0f, 1.0f}), 1e-6, 1e-30));
}

TEST(Layers, RotationOfAnyStrides) {
  at::manual_seed(4);
  const at::Tensor angles = at::randn({5, 3}, at::kDouble), cos = angles.cos(), sin = angles.sin();
  const at::Tensor features = at::randn({2, 5, 4 * 6}, at::kDouble);
  for (const at::Tensor& x : {features.view({2, 5, 4, 6}).transpose(1, 2), at::randn({2, 4, 5, 6}, at::kDouble),
                              at::randn({2, 4, 5, 12}, at::kDouble).slice(3, 0, 12, 2)}) {
    const at::Tensor in = leaf(x), y = ops::rotate(in, cos, sin), expected = composed_rotation(in, cos, sin);
    EXPECT_LT(error(y, expected), 1e-14);
    const at::Tensor grad = at::randn_like(expected);
    EXPECT_LT(error(torch::autograd::grad({(y * grad).sum()}, {in})[0],
                    torch::autograd::grad({(expected * grad).sum()}, {in})[0]),
              1e-13);
    EXPECT_LT(error(ops::rotate(y, cos, sin, /*inverse=*/true), in), 1e-13);
  }
  const at::Tensor view = features.view({2, 5, 4, 6}).transpose(1, 2);
  EXPECT_EQ(ops::rotate(view, cos, sin).strides(), view.strides()) << "attention reads it as it lies";
}

TEST(Layers, NarrowResultsAreRoundedOnce) {
  const NormTensors in = make_norm(20, 96, 5);
  const at::Tensor x = in.x.to(at::kFloat), delta = in.delta.to(at::kBFloat16), weight = in.weight.to(at::kBFloat16);
  const auto result = ops::rms_norm(x, delta, weight, kEps, at::kBFloat16);
  EXPECT_EQ(result.sum.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(result.sum, x + delta.to(at::kFloat)));
  const at::Tensor exact = composed_norm(result.sum.to(at::kDouble), weight.to(at::kDouble), kEps);
  EXPECT_EQ(result.y.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(((result.y.to(at::kDouble) - exact).abs() <= exact.abs() * 0.00392).all().item<bool>());  // half a step
  const at::Tensor y = ops::swiglu(delta, in.grad.to(at::kBFloat16));
  const at::Tensor product = composed_swiglu(delta.to(at::kDouble), in.grad.to(at::kBFloat16).to(at::kDouble));
  EXPECT_TRUE(((y.to(at::kDouble) - product).abs() <= product.abs() * 0.00392).all().item<bool>());
}

TEST(Layers, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::randn({2, 8}), weight = at::ones({8});
  EXPECT_THROW(ops::rms_norm(x, {}, at::ones({7}), kEps, at::kFloat), InternalError);
  EXPECT_THROW(ops::rms_norm(x, {}, weight, kEps, at::kDouble), InternalError);
  EXPECT_THROW(ops::rms_norm(x, at::randn({2, 7}), weight, kEps, at::kFloat), InternalError);
  EXPECT_THROW(ops::swiglu(x, at::randn({2, 7})), InternalError);
  EXPECT_THROW(ops::rotate(at::randn({1, 1, 2, 7}), weight, weight), InternalError);
  EXPECT_THROW(ops::rotate(at::randn({1, 1, 2, 8}), at::ones({3, 4}), at::ones({3, 4})), InternalError);
}

}  // namespace
}  // namespace satin::test
