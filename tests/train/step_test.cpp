// One step's losses and gradients against transformers + plain-Python quantizers and losses, in fp64.
#include "train/step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>
#include <optional>

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
  loss.hidden.weight = weights.value("hidden", 0.0);
  loss.hidden.layers = expected["hidden_layers"];
  return loss;
}

/// The first rows and columns of a tensor that is larger than asked for.
at::Tensor first(at::Tensor tensor, at::IntArrayRef sizes) {
  for (size_t i = 0; i < sizes.size(); ++i) tensor = tensor.narrow(static_cast<int64_t>(i), 0, sizes[i]);
  return tensor;
}

/// The oracle's folder: model, inputs, and one .json and .safetensors a case.
class Step : public testing::Test {
 protected:
  test::TempDir dir;
  fs::path oracle = dir / "oracle";
  nn::BuildOptions build{.master_dtype = at::kDouble, .compute_dtype = at::kDouble};
  std::unique_ptr<models::Decoder> teacher;
  std::optional<io::SafetensorsFile> inputs;

  void make_oracle() {
    const auto made = test::run_python("train/step_oracle.py " + oracle.string());
    ASSERT_EQ(made.exit_code, 0) << made.output;
    inputs.emplace(oracle / "inputs.safetensors");
    teacher = io::load_pretrained(oracle / "model", nn::dense_linear_factory(), build);
  }

  /// Two micro-batches: accumulation is part of the claim.
  std::vector<data::Batch> batches() const {
    std::vector<data::Batch> halves(2);
    for (int64_t half = 0; half < 2; ++half) {
      halves[half].tokens = inputs->tensor("tokens").slice(0, 2 * half, 2 * half + 2).clone();
      halves[half].loss_mask = inputs->tensor("mask").slice(0, 2 * half, 2 * half + 2).to(at::kBool);
      halves[half].sample_ids = {static_cast<uint64_t>(2 * half), static_cast<uint64_t>(2 * half + 1)};
    }
    return halves;
  }

  /// Runs the case on our side and compares its losses and every gradient.
  void compare(const fs::path& case_file, const config::Neighbourhood& neighbours) {
    SCOPED_TRACE(case_file.stem().string());
    const auto expected = nlohmann::json::parse(test::read_file(case_file));
    const io::SafetensorsFile gradients(fs::path(case_file).replace_extension(".safetensors"));

    quant::Registry registry;
    nn::LinearFactory factory = nn::dense_linear_factory();
    if (!expected["bits"].is_null()) {
      const bool three_levels = expected["method"] == "ternary" || expected["method"] == "bitnet";
      config::Quantization quantization;
      quantization.default_rule.method = expected["method"];
      quantization.default_rule.bits = three_levels ? 1.58 : expected["bits"].get<double>();
      const nlohmann::json& extra = expected["extra"];
      quantization.default_rule.group_size = extra.value("group_size", 8);
      quantization.default_rule.activations = extra.value("activations", "none");
      factory = quant::quant_linear_factory(quant::Policy(quantization), registry);
    }
    nn::BuildOptions trainable = build;
    trainable.trainable = true;
    auto student = io::load_pretrained(oracle / "model", factory, trainable);
    {
      at::NoGradGuard no_grad;
      for (const auto& parameter : student->parameters().all())
        if (nn::is_quantizer(parameter.role))
          parameter.value.copy_(first(inputs->tensor(parameter.name), parameter.value.sizes()));
    }
    student->store_keys_and_values_as(models::kv_cache_format(expected["extra"].value("kv_cache", "none"), "case"));
    const losses::Objective objective(loss_config(expected));
    const losses::Neighbourhood neighbourhood(neighbours, 32, {}, 0, 64);
    TrainingStep step(*student, registry, teacher.get(), objective, neighbourhood, {.chunk_tokens = 7});
    const StepResult result = step.run(batches(), 0.5);

    for (const auto& [name, value] : expected["losses"].items())
      EXPECT_NEAR(result.losses.at(name).item<double>(), value.get<double>(), 1e-10) << name;
    for (const auto& parameter : student->parameters().all()) {
      ASSERT_TRUE(gradients.tensors().contains(parameter.name)) << parameter.name;
      const at::Tensor want = gradients.tensor(parameter.name);
      const at::Tensor got =
          parameter.value.grad().defined() ? parameter.value.grad() : at::zeros_like(parameter.value);
      EXPECT_LE((got - want).norm().item<double>(), 1e-10 * (1 + want.norm().item<double>())) << parameter.name;
    }
  }
};

/// Cases are what the oracle wrote, so that one table (in the script) drives both sides.
TEST_F(Step, LossesAndGradientsEqualTransformersInDouble) {
  SATIN_NEEDS_PYTHON("transformers");
  make_oracle();
  if (HasFatalFailure()) return;
  config::Neighbourhood none;
  none.rate = 0;
  int num_cases = 0;
  for (const auto& entry : fs::directory_iterator(oracle)) {
    if (entry.path().extension() != ".json") continue;
    compare(entry.path(), none);
    ++num_cases;
  }
  EXPECT_EQ(num_cases, 82);
}

/// Which tokens are drawn is tested in tests/losses; here, what a step does with them: both models read the perturbed
/// text, the clean tokens stay the targets.
TEST_F(Step, NeighbourhoodTrainsOnThePerturbedText) {
  SATIN_NEEDS_PYTHON("transformers");
  make_oracle();
  if (HasFatalFailure()) return;
  config::Neighbourhood neighbours;
  neighbours.rate = 0.4;
  neighbours.top_k = 5;
  config::Neighbourhood growing = neighbours;  // the same rate half-way, where the step is
  growing.rate = 0.8;
  growing.start = 0.25;
  growing.ramp = 0.5;
  const losses::Neighbourhood neighbourhood(neighbours, 32, {}, 0, 64);
  const losses::Source source = [&](const at::Tensor& tokens) -> losses::SourceStates {
    at::NoGradGuard no_grad;
    return {teacher->hidden(tokens), teacher->head().weight()};
  };
  std::vector<at::Tensor> contexts;
  for (const data::Batch& batch : batches())
    contexts.push_back(
        neighbourhood.perturb(batch.tokens, {batch.tokens, batch.document_starts, batch.sample_ids}, source));
  io::write_safetensors(dir / "context.safetensors", {{"context", at::cat(contexts)}});
  const auto made =
      test::run_python("train/step_oracle.py " + oracle.string() + " " + (dir / "context.safetensors").string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  compare(oracle / "lsq_asymmetric-neighbourhood.json", neighbours);
  compare(oracle / "lsq_asymmetric-neighbourhood.json", growing);
}

/// With every token of the vocabulary stored, and nothing rounded, the cache is the teacher.
TEST_F(Step, AStoredTeacherIsTheTeacher) {
  SATIN_NEEDS_PYTHON("transformers");
  make_oracle();
  if (HasFatalFailure()) return;
  config::Loss loss;
  loss.ce.weight = 0.2;
  loss.smoothness = {.weight = 0.5, .top_k = 32, .temperature = 2, .start = 0};
  for (const double rate : {0.0, 0.5}) {
    SCOPED_TRACE(rate);
    loss.neighbourhood.rate = rate;  // above 0: at perturbed copies, which the cache then has
    loss.neighbourhood.top_k = 8;
    const losses::Objective objective(loss);
    const losses::Neighbourhood neighbourhood(loss.neighbourhood, 32, {}, 0);
    const losses::Source source = [&](const at::Tensor& tokens) -> losses::SourceStates {
      at::NoGradGuard no_grad;
      return {teacher->hidden(tokens), teacher->head().weight()};
    };
    const auto run = [&](bool stored) {
      quant::Registry registry;
      nn::BuildOptions trainable = build;
      trainable.trainable = true;
      auto student = io::load_pretrained(oracle / "model", nn::dense_linear_factory(), trainable);
      {
        at::NoGradGuard no_grad;
        for (const auto& parameter : student->parameters().all()) parameter.value.mul_(1.1);
      }
      std::vector<data::Batch> halves = batches();
      for (data::Batch& batch : halves) {
        if (!stored) break;
        at::NoGradGuard no_grad;
        const at::Tensor text =
            neighbourhood.perturb(batch.tokens, {batch.tokens, batch.document_starts, batch.sample_ids}, source);
        const at::Tensor logits = teacher->logits(teacher->hidden(text));
        const auto [values, ids] = logits.sort(/*stable=*/true, -1, /*descending=*/true);
        const at::Tensor largest = values.narrow(-1, 0, 1), total = logits.logsumexp(-1);
        batch.teacher = {ids.to(at::kInt), values - largest, total - largest.squeeze(-1),
                         at::full_like(total, -INFINITY)};
        if (rate > 0) batch.teacher.tokens = text;
      }
      TrainingStep step(*student, registry, stored ? nullptr : teacher.get(), objective, neighbourhood);
      const StepResult result = step.run(halves, 0.5);
      std::map<std::string, at::Tensor> all;
      for (const auto& [name, value] : result.losses) all["loss " + name] = value;
      for (const auto& parameter : student->parameters().all()) all[parameter.name] = parameter.value.grad();
      return all;
    };
    const auto want = run(false), got = run(true);
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [name, value] : want)
      EXPECT_LE((got.at(name) - value).norm().item<double>(), 1e-10 * (1 + value.norm().item<double>())) << name;
  }
}

}  // namespace
}  // namespace satin::train
