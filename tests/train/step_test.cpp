// One step's losses and gradients against transformers + plain-Python quantizers and losses, in fp64.
#include "train/step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "io/pretrained.h"
#include "io/safetensors.h"
#include "models/model_config.h"
#include "quant/policy.h"
#include "quant/registry.h"
#include "support/test_support.h"

namespace satin::train {
namespace {

namespace fs = std::filesystem;

config::Loss loss_config(const nlohmann::json& expected) {
  const nlohmann::json& weights = expected["weights"];
  config::Loss loss;
  loss.kd.kind = expected["kd_kind"];
  loss.kd.temperature = expected["kd_temperature"];
  loss.ce.weight = weights.value("ce", 0.0);
  loss.kd.weight = weights.value("kd", 0.0);
  loss.smoothness.weight = weights.value("smoothness", 0.0);
  loss.smoothness.top_k = 5;
  loss.smoothness.start = 0;
  loss.neighbourhood.rate = 0;
  return loss;
}

/// Cases are what the oracle wrote, so that one table (in the script) drives both sides.
TEST(Step, LossesAndGradientsEqualTransformersInDouble) {
  SATIN_NEEDS_PYTHON("transformers");
  test::TempDir dir;
  const auto made = test::run_python("train/step_oracle.py " + (dir / "oracle").string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  const fs::path oracle = dir / "oracle";
  const io::SafetensorsFile inputs(oracle / "inputs.safetensors");
  nn::BuildOptions build{.master_dtype = at::kDouble, .compute_dtype = at::kDouble};
  auto teacher = io::load_pretrained(oracle / "model", nn::dense_linear_factory(), build);
  build.trainable = true;

  int num_cases = 0;
  for (const auto& entry : fs::directory_iterator(oracle)) {
    if (entry.path().extension() != ".json") continue;
    SCOPED_TRACE(entry.path().stem().string());
    const auto expected = nlohmann::json::parse(test::read_file(entry.path()));
    const io::SafetensorsFile gradients(fs::path(entry.path()).replace_extension(".safetensors"));

    quant::Registry registry;
    nn::LinearFactory factory = nn::dense_linear_factory();
    if (!expected["bits"].is_null()) {
      config::Quantization quantization;
      quantization.default_rule.method = expected["method"];
      quantization.default_rule.bits =
          expected["method"] == "ternary" || expected["method"] == "bitnet" ? 1.58 : expected["bits"].get<double>();
      quantization.default_rule.group_size = 8;
      factory = quant::quant_linear_factory(quant::Policy(quantization), registry);
    }
    auto student = io::load_pretrained(oracle / "model", factory, build);
    {
      at::NoGradGuard no_grad;
      for (const auto& parameter : student->parameters().all())
        if (parameter.role == nn::Role::kScale || parameter.role == nn::Role::kZeroPoint)
          parameter.value.copy_(inputs.tensor(parameter.name));
    }

    const config::Loss loss = loss_config(expected);
    const losses::Objective objective(loss);
    const losses::Neighbourhood neighbourhood(loss.neighbourhood, 32, {}, 0, 64);
    TrainingStep step(*student, registry, teacher.get(), objective, neighbourhood, /*chunk_tokens=*/7);
    std::vector<data::Batch> batches(2);  // two micro-batches: accumulation is part of the claim
    for (int64_t half = 0; half < 2; ++half) {
      batches[half].tokens = inputs.tensor("tokens").slice(0, 2 * half, 2 * half + 2).clone();
      batches[half].loss_mask = inputs.tensor("mask").slice(0, 2 * half, 2 * half + 2).to(at::kBool);
      batches[half].sample_ids = {0, 1};
    }
    const StepResult result = step.run(batches, 0.5);

    for (const auto& [name, value] : expected["losses"].items())
      EXPECT_NEAR(result.losses.at(name).item<double>(), value.get<double>(), 1e-10) << name;
    for (const auto& parameter : student->parameters().all()) {
      ASSERT_TRUE(gradients.tensors().contains(parameter.name)) << parameter.name;
      const at::Tensor want = gradients.tensor(parameter.name);
      const at::Tensor got =
          parameter.value.grad().defined() ? parameter.value.grad() : at::zeros_like(parameter.value);
      EXPECT_LE((got - want).norm().item<double>(), 1e-10 * (1 + want.norm().item<double>())) << parameter.name;
    }
    ++num_cases;
  }
  EXPECT_EQ(num_cases, 70);
}

}  // namespace
}  // namespace satin::train
