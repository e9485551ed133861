// Models saved by transformers: the same logits, and a load_refusal that names every tensor that is not as it should
// be.
#include "io/pretrained.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "io/checkpoint.h"
#include "quant/registry.h"
#include "support/test_support.h"

namespace satin::io {
using test::TempDir;
namespace fs = std::filesystem;

namespace {

/// Made once for all tests of this file.
const fs::path& models() {
  static const TempDir dir;
  static const auto made = test::run_python("io/family_models.py " + dir.path().string());
  EXPECT_EQ(made.exit_code, 0) << made.output;
  return dir.path();
}

std::unique_ptr<models::Decoder> load(const fs::path& directory, const nn::BuildOptions& options = {}) {
  return load_pretrained(directory, nn::dense_linear_factory(), options);
}

std::string load_refusal(const fs::path& directory) {
  try {
    load(directory);
  } catch (const UserError& error) {
    return error.what();
  }
  return "accepted";
}

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// A copy of one of models() with other tensors in one file.
void write_model(const fs::path& directory, const std::string& family, const NamedTensors& tensors) {
  fs::create_directories(directory);
  fs::copy_file(models() / family / "config.json", directory / "config.json", fs::copy_options::overwrite_existing);
  write_safetensors(directory / "model.safetensors", tensors);
}

NamedTensors tensors_of(const std::string& family) {
  const TensorDirectory directory(models() / family);
  NamedTensors tensors;
  for (const auto& name : directory.names()) tensors.emplace_back(name, directory.tensor(name));
  return tensors;
}

void replace(const fs::path& file, const std::string& from, const std::string& to) {
  std::string text = test::read_file(file);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << text;
  test::write_file(file, text.replace(at, from.size(), to));
}

}  // namespace

TEST(Pretrained, LogitsOfEveryFamilyEqualTransformers) {
  SATIN_NEEDS_PYTHON("transformers");
  const at::NoGradGuard no_grad;
  int num_models = 0;
  for (const auto& entry : fs::directory_iterator(models())) {
    const TensorDirectory expected(entry.path() / "expected");
    const auto decoder = load(entry.path());
    const at::Tensor logits = decoder->logits(decoder->hidden(expected.tensor("tokens")));
    EXPECT_LT((logits - expected.tensor("logits")).abs().max().item<double>(), 1e-4) << entry.path();
    EXPECT_GT(logits.std().item<double>(), 0.5) << "too flat to tell models apart";
    ++num_models;
  }
  EXPECT_EQ(num_models, 6);
}

TEST(Pretrained, WeightsAreConvertedToTheMasterDtype) {
  SATIN_NEEDS_PYTHON("transformers");
  TempDir dir;
  NamedTensors tensors = tensors_of("qwen2");
  for (auto& [name, value] : tensors) value = value.to(at::kBFloat16);
  write_model(dir / "m", "qwen2", tensors);
  const auto decoder = load(dir / "m");
  for (const auto& [name, value] : tensors) {
    EXPECT_EQ(decoder->parameters().at(name).scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(decoder->parameters().at(name), value.to(at::kFloat))) << name;
  }
}

TEST(Pretrained, EveryWrongTensorIsNamed) {
  SATIN_NEEDS_PYTHON("transformers");
  TempDir dir;
  NamedTensors tensors;
  for (const auto& [name, value] : tensors_of("llama")) {
    if (name == "model.layers.0.mlp.up_proj.weight") continue;
    if (name == "model.norm.weight")
      tensors.emplace_back(name, at::ones({63}));
    else if (name == "model.layers.1.mlp.down_proj.weight")
      tensors.emplace_back(name, value.to(at::kChar));
    else
      tensors.emplace_back(name, value);
  }
  tensors.emplace_back("model.layers.2.mlp.up_proj.weight", at::ones({1}));
  tensors.emplace_back("model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({1}));
  write_model(dir / "m", "llama", tensors);
  const std::string text = load_refusal(dir / "m");
  test::expect_contains(text, "missing: model.layers.0.mlp.up_proj.weight [96, 64]");
  test::expect_contains(text, "misshapen: model.norm.weight: expected [64], found [63]");
  test::expect_contains(text, "wrong dtype: model.layers.1.mlp.down_proj.weight: expected a floating one, found Char");
  test::expect_contains(text, "extra: model.layers.2.mlp.up_proj.weight");
  EXPECT_EQ(text.find("inv_freq"), std::string::npos) << text;
}

TEST(Pretrained, ATiedHeadMayBeStoredButNotDiffer) {
  SATIN_NEEDS_PYTHON("transformers");
  TempDir dir;
  NamedTensors tensors = tensors_of("qwen2");
  at::Tensor embedding;
  for (const auto& [name, value] : tensors)
    if (name == "model.embed_tokens.weight") embedding = value;
  tensors.emplace_back("lm_head.weight", embedding);
  write_model(dir / "m", "qwen2", tensors);
  EXPECT_EQ(load_refusal(dir / "m"), "accepted");
  tensors.back().second = embedding + 1;
  write_model(dir / "m", "qwen2", tensors);
  test::expect_contains(load_refusal(dir / "m"), "lm_head.weight differs from model.embed_tokens.weight");
}

TEST(Pretrained, AQuantizedModelIsRefusedByName) {
  SATIN_NEEDS_PYTHON("transformers");
  TempDir dir;
  write_model(dir / "m", "llama", tensors_of("llama"));
  replace(dir / "m/config.json", "{", R"({"quantization_config": {"quant_method": "gptq", "bits": 4},)");
  test::expect_contains(load_refusal(dir / "m"), "quantized with gptq");
}

TEST(Pretrained, ACheckpointKeepsItsQuantizers) {
  SATIN_NEEDS_PYTHON("transformers");
  TempDir dir;
  config::Quantization quantization;
  quantization.default_rule.group_size = 32;
  const quant::Policy policy(quantization);
  quant::Registry first_registry, second_registry;
  const auto first = load_pretrained(models() / "llama", quant::quant_linear_factory(policy, first_registry), {});
  quant::initialise_from_weights(first_registry);

  CheckpointContents contents;
  contents.manifest.step = 3;
  contents.model_files = models() / "llama";
  for (const auto& module : first_registry.modules()) contents.manifest.schemes[module.name] = module.scheme;
  for (const auto& parameter : first->parameters().all()) {
    if (parameter.role == nn::Role::kScale) at::Tensor(parameter.value).mul_(1.5);  // as training would
    contents.model.emplace_back(parameter.name, parameter.value);
  }
  const fs::path saved = save_checkpoint(dir / "run", contents, 1);
  EXPECT_EQ(read_manifest(saved).schemes.size(), 14u);

  const auto second = load_pretrained(saved, quant::quant_linear_factory(policy, second_registry), {});
  int num_scales = 0;
  for (const auto& parameter : first->parameters().all()) {
    EXPECT_TRUE(at::equal(second->parameters().at(parameter.name), parameter.value)) << parameter.name;
    num_scales += parameter.role == nn::Role::kScale;
  }
  EXPECT_EQ(num_scales, 14);

  test::expect_contains(load_refusal(saved), "extra: model.layers.0.mlp.down_proj.weight_scale");
  fs::resize_file(saved / "optimizer.safetensors", 3);
  test::expect_contains(load_refusal(saved), "optimizer.safetensors: expected");
}

TEST(Pretrained, DirectoriesThatAreNoModel) {
  TempDir dir;
  test::expect_contains(load_refusal(dir / "absent"), "expected a model directory");
  test::expect_contains(load_refusal(dir.path()), "config.json");
  test::write_file(dir / "config.json", "{\"model_type\": \"llama\"");
  test::expect_contains(load_refusal(dir.path()), "not valid JSON");
}

}  // namespace satin::io
