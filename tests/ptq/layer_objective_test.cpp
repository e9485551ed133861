// The two-Hessian objective against its definition on data, and its slope against finite differences in double.
#include "ptq/layer_objective.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace satin::ptq {
namespace {

at::Tensor value_of(const LayerObjective& objective, const at::Tensor& error) {
  return LayerObjective::value(error, objective.slope(error));
}

TEST(LayerObjective, IsTheMeanSquaredErrorOfOutputsAndOfGradients) {
  at::manual_seed(1);
  const at::Tensor x = at::randn({50, 6}, at::kDouble), g = at::randn({50, 4}, at::kDouble);
  const at::Tensor w = at::randn({4, 6}, at::kDouble), rounded = w + 0.1 * at::randn({4, 6}, at::kDouble);
  const LayerObjective objective{at::mm(x.t(), x) / 50, at::mm(g.t(), g) / 50, 0.7};
  const double outputs = (at::mm(x, rounded.t()) - at::mm(x, w.t())).square().sum().item<double>() / 50;
  const double gradients = (at::mm(g, rounded) - at::mm(g, w)).square().sum().item<double>() / 50;
  const auto terms = objective.terms(rounded - w);
  EXPECT_NEAR(terms.forward.item<double>(), outputs, 1e-12);
  EXPECT_NEAR(terms.backward.item<double>(), gradients, 1e-12);
  EXPECT_NEAR(value_of(objective, rounded - w).item<double>(), outputs + 0.7 * gradients, 1e-12);

  const LayerObjective balanced = LayerObjective::balanced(objective.input, objective.gradient, rounded - w, 10);
  EXPECT_NEAR(balanced.weight * gradients, 10 * outputs, 1e-10);
}

TEST(LayerObjective, SlopeEqualsFiniteDifferences) {
  at::manual_seed(2);
  const at::Tensor x = at::randn({50, 6}, at::kDouble), g = at::randn({50, 4}, at::kDouble);
  const LayerObjective objective{at::mm(x.t(), x), at::mm(g.t(), g), 0.3};
  const at::Tensor error = at::randn({4, 6}, at::kDouble);
  const at::Tensor slope = objective.slope(error);
  constexpr double kStep = 1e-5;
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 6; ++j) {
      at::Tensor ahead = error.clone(), behind = error.clone();
      ahead[i][j] += kStep;
      behind[i][j] -= kStep;
      const double difference = (value_of(objective, ahead) - value_of(objective, behind)).item<double>() / (2 * kStep);
      EXPECT_NEAR(slope[i][j].item<double>(), difference, 1e-5 * std::abs(difference) + 1e-6);
    }
}

}  // namespace
}  // namespace satin::ptq
