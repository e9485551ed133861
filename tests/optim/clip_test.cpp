#include "optim/clip.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "support/test_support.h"

namespace satin::optim {
namespace {
using nlohmann::json;

nn::Parameter with_gradient(const std::string& name, nn::Role role, at::Tensor gradient) {
  nn::Parameter parameter{name, at::zeros_like(gradient).requires_grad_(), role};
  parameter.value.mutable_grad() = std::move(gradient);
  return parameter;
}

TEST(Clip, AgreesWithPyTorchInTwoSets) {
  SATIN_NEEDS_PYTHON("torch");
  test::TempDir dir;
  const auto result = test::run_python("optim/adamw_oracle.py " + (dir / "steps.json").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const json record = json::parse(test::read_file(dir / "steps.json"));
  bool some_clipped = false, some_kept = false;
  for (const json& step : record["steps"]) {
    std::vector<nn::Parameter> parameters;
    for (const auto& [name, values] : step["gradients"].items()) {
      const std::string role = record["parameters"][name]["role"];
      const bool quantizer = role == "scale" || role == "zero_point";
      parameters.push_back(with_gradient(name, quantizer ? nn::Role::kScale : nn::Role::kWeight,
                                         at::tensor(values.get<std::vector<double>>(), at::kDouble)));
    }
    const GradientNorms norms = gradient_norms(parameters);
    EXPECT_NEAR(norms.model.item<double>(), step["norms"][0].get<double>(), 1e-12);
    EXPECT_NEAR(norms.quantizer.item<double>(), step["norms"][1].get<double>(), 1e-12);
    (step["norms"][0] > 1 ? some_clipped : some_kept) = true;
    const ClipFactors factors = clip_factors(norms, 1);
    for (const nn::Parameter& p : parameters) {
      const at::Tensor expected = at::tensor(step["clipped"][p.name].get<std::vector<double>>(), at::kDouble);
      const at::Tensor clipped = p.value.grad() * (nn::is_quantizer(p.role) ? factors.quantizer : factors.model);
      EXPECT_LE((clipped - expected).abs().max().item<double>(), 1e-14) << p.name;
    }
  }
  EXPECT_TRUE(some_clipped && some_kept);
}

TEST(Clip, ZeroMeansOff) {
  const auto p = with_gradient("w", nn::Role::kWeight, at::full({3}, 100.0));
  const ClipFactors factors = clip_factors(gradient_norms({p}), 0);
  EXPECT_FALSE(factors.model.defined() || factors.quantizer.defined());
}

TEST(Clip, EmptySetsAndMixedDtypes) {
  EXPECT_EQ(gradient_norms({}).model.item<double>(), 0);
  EXPECT_EQ(gradient_norms({}).quantizer.item<double>(), 0);
  const std::vector<nn::Parameter> mixed = {with_gradient("a", nn::Role::kWeight, at::full({1}, 3.0, at::kFloat)),
                                            with_gradient("b", nn::Role::kBias, at::full({1}, 4.0, at::kBFloat16))};
  const GradientNorms norms = gradient_norms(mixed);
  EXPECT_FLOAT_EQ(norms.model.item<float>(), 5);
  EXPECT_NEAR(clip_factors(norms, 2.5).model.item<double>(), 0.5, 1e-6);
  EXPECT_EQ(clip_factors(norms, 2.5).quantizer.item<double>(), 1);
}

TEST(Clip, FindsWhatIsNotFinite) {
  std::vector<nn::Parameter> parameters = {with_gradient("layers.0", nn::Role::kWeight, at::ones({4})),
                                           with_gradient("layers.1", nn::Role::kScale, at::ones({4})),
                                           with_gradient("layers.2", nn::Role::kNorm, at::ones({4})),
                                           {"unused", at::ones({2}).requires_grad_(), nn::Role::kBias}};
  EXPECT_EQ(non_finite(gradient_norms(parameters)).item<float>(), 0);
  EXPECT_TRUE(non_finite_gradients(parameters).empty());
  parameters[1].value.mutable_grad()[2] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(non_finite(gradient_norms(parameters)).item<float>(), 1);
  EXPECT_EQ(clip_factors(gradient_norms(parameters), 0.5).quantizer.item<double>(), 1);
  EXPECT_EQ(non_finite_gradients(parameters), std::vector<std::string>{"layers.1"});
  parameters[0].value.mutable_grad()[0] = std::nan("");
  EXPECT_EQ(non_finite(gradient_norms(parameters)).item<float>(), 1);
  EXPECT_EQ(clip_factors(gradient_norms(parameters), 0.5).model.item<double>(), 1);
  EXPECT_EQ(non_finite_gradients(parameters), (std::vector<std::string>{"layers.0", "layers.1"}));
  EXPECT_TRUE(non_finite_values(parameters).empty());
  parameters[2].value.detach()[3] = std::nan("");
  EXPECT_EQ(non_finite_values(parameters), std::vector<std::string>{"layers.2"});
}

}  // namespace
}  // namespace satin::optim
