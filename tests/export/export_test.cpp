// What is written is what was trained: every scheme through every format and back, and through transformers.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "export/format.h"
#include "io/checkpoint.h"
#include "io/model_files.h"
#include "quant/registry.h"
#include "support/test_support.h"
#include "train/models.h"

namespace satin::exporting {
namespace {

nlohmann::json tiny_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 96},
          {"hidden_size", 128},
          {"intermediate_size", 192},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 32},
          {"max_position_embeddings", 64},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", true},
          {"dtype", "bfloat16"},
          {"initializer_range", 0.2},
          {"bos_token_id", 0},
          {"eos_token_id", 1}};
}

struct Case {
  std::string method;
  double bits;
  int64_t group_size;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.method << " " << c.bits << " g" << c.group_size; }

const std::vector<Case> kCases = {{"lsq_asymmetric", 2, 64},
                                  {"lsq_asymmetric", 4, 32},
                                  {"minmax_asymmetric", 3, -1},
                                  {"lsq", 2, 64},
                                  {"lsq", 3, 32},
                                  {"minmax_symmetric", 8, -1},
                                  {"seq", 2, 64},
                                  {"ternary", 1.58, -1},
                                  {"binary", 1, 64},
                                  {"bitnet", 1.58, 64}};

class Export : public testing::Test {
 protected:
  test::TempDir dir;

  /// A random model, quantized, with scales and zero points moved off their initial values, as a checkpoint.
  fs::path make_checkpoint(const Case& scheme, const std::vector<config::QuantizationRule>& overrides = {}) {
    test::write_file(dir / "model/config.json", tiny_config().dump());
    config::Config config;
    config.model.path = dir / "model";
    config.model.init = "random";
    config.quantization.emplace();
    config.quantization->default_rule = {"", scheme.method, scheme.bits, scheme.group_size, "bfloat16", "data"};
    config.quantization->overrides = overrides;
    const train::Student student = train::build_student(config, train::student_options(at::kCPU, at::kFloat), {});
    at::NoGradGuard no_grad;
    at::manual_seed(7);
    for (const auto& parameter : student.decoder->parameters().all()) {
      if (parameter.role == nn::Role::kScale) parameter.value.mul_(at::empty_like(parameter.value).uniform_(.5, 1.2));
      if (parameter.role == nn::Role::kZeroPoint)
        parameter.value.add_(at::empty_like(parameter.value).uniform_(-.9, .9));
    }
    for (const auto& module : student.registry->modules())
      trained_.emplace_back(module.name + ".weight", module.linear->weight(at::kFloat).clone());
    return io::save_checkpoint(dir / cat("run-", num_checkpoints_++), train::checkpoint_contents(config, student), 1);
  }

  std::vector<std::pair<std::string, at::Tensor>> trained_;  ///< what the training forward multiplied with
  int num_checkpoints_ = 0;
};

class ExportCases : public Export, public testing::WithParamInterface<Case> {};

TEST_P(ExportCases, EveryFormatHoldsTheTrainingForwardBitForBit) {
  const ShippedModel model = open_model(make_checkpoint(GetParam()));
  for (const auto& format : formats()) {
    // Refused, see gptq_test.cpp and awq_test.cpp.
    if ((format->name() == "gptq" || format->name() == "awq") && GetParam().method == "seq") continue;
    if (format->name() == "awq" && GetParam().bits == 8) continue;
    if (format->name() == "bitnet") continue;  // wants a scale a tensor and activations, see bitnet_test.cpp
    const fs::path output = dir / format->name();
    export_model(model, *format, output, false);
    const ShippedModel back = open_model(output);
    EXPECT_EQ(back.kind, format->name());
    for (const auto& [name, weight] : trained_)
      EXPECT_TRUE(back.find(name)->values().to(at::kFloat).equal(weight)) << format->name() << " " << name;
    EXPECT_THROW(export_model(model, *format, output, false), UserError);  // never overwrites
    export_model(model, *format, output, true);
    const nn::BuildOptions build;
    const at::Tensor tokens = at::arange(20).view({1, 20});
    at::NoGradGuard no_grad;
    auto a = build_decoder(model, build), b = build_decoder(back, build);
    EXPECT_TRUE(a->hidden(tokens).equal(b->hidden(tokens)));
  }
}

// The independent reader: transformers + compressed-tensors decompress the file; the weights must be the same bits.
TEST_F(Export, TransformersReadsTheSameWeights) {
  SATIN_NEEDS_PYTHON("compressed_tensors");
  SATIN_NEEDS_PYTHON("transformers");
  std::string pairs;  // one process for all: it takes seconds to start
  for (size_t i = 0; i < kCases.size(); ++i) {
    const ShippedModel model = open_model(
        make_checkpoint(kCases[i], {{"model.layers.1.mlp.*", "lsq", 4, -1, "bfloat16", "data"}, {"*.v_proj", "none"}}));
    for (const char* name : {"hf", "compressed-tensors"}) {
      const fs::path output = dir / cat(name, "-", i);
      export_model(model, format(name), output, false);
      pairs += " " + output.string();
    }
  }
  const auto result = test::run_python("export/compare_with_transformers.py" + pairs);
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

// Shards are written and read; transformers finds the same weights through the index.
TEST_F(Export, InShardsIsTheSameModel) {
  const ShippedModel model = open_model(make_checkpoint({"lsq_asymmetric", 4, 32}));
  WriteOptions options;
  options.shard_bytes = 20'000;
  std::map<std::string, double> last;
  options.progress = [&](const std::string& phase, double done) {
    EXPECT_GT(done, last[phase]);
    last[phase] = done;
  };
  for (const auto& format : formats()) {
    if (format->name() == "bitnet") continue;
    last.clear();
    export_model(model, *format, dir / (format->name() + "-shards"), false, options);
    EXPECT_EQ(last["packing"], 1);
    EXPECT_EQ(last["verifying"], 1);
    export_model(model, *format, dir / format->name(), false);
    if (format->one_file()) continue;
    EXPECT_TRUE(fs::exists(dir / (format->name() + "-shards/model.safetensors.index.json")));
    EXPECT_FALSE(fs::exists(dir / (format->name() + "-shards/model.safetensors")));
    EXPECT_TRUE(fs::exists(dir / (format->name() + "/model.safetensors")));
    const ShippedModel one = open_model(dir / format->name()), many = open_model(dir / (format->name() + "-shards"));
    ASSERT_EQ(one.tensors.size(), many.tensors.size());
    for (const auto& tensor : one.tensors)
      EXPECT_TRUE(tensor.values().equal(many.find(tensor.name)->values())) << tensor.name;
  }
  SATIN_NEEDS_PYTHON("compressed_tensors");
  SATIN_NEEDS_PYTHON("transformers");
  const auto result = test::run_python("export/compare_with_transformers.py " + (dir / "hf-shards").string() + " " +
                                       (dir / "compressed-tensors-shards").string());
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

INSTANTIATE_TEST_SUITE_P(Schemes, ExportCases, testing::ValuesIn(kCases));

TEST(Format, UnknownNameSuggests) {
  try {
    format("compresed-tensors");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("'compressed-tensors'"), std::string::npos) << error.what();
  }
}

TEST(Format, RefusesWhatItCannotHoldAndNamesTheAlternative) {
  quant::Scheme scheme;
  scheme.scale_dtype = quant::Storage::kFloat16;
  try {
    check_exact(format("compressed-tensors"), {{"model.layers.0.mlp.up_proj", scheme}}, at::kBFloat16);
    FAIL();
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("up_proj"), std::string::npos) << text;
    EXPECT_NE(text.find("exactly: hf"), std::string::npos) << text;
  }
}

TEST(ShippedModel, LoadsWhenAskedAndKeepsNothing) {
  ShippedModel model;
  int loads = 0;
  model.add({"a.weight", {2, 2}, at::kFloat, [&loads] {
               ++loads;
               return at::ones({2, 2});
             }});
  EXPECT_EQ(model.find("a.weight")->num_elements(), 4);
  EXPECT_EQ(loads, 0);
  EXPECT_TRUE(model.find("a.weight")->values().equal(at::ones({2, 2})));
  model.find("a.weight")->values();
  EXPECT_EQ(loads, 2);
  EXPECT_EQ(model.find("a"), nullptr);
  EXPECT_THROW(model.add({"a.weight", at::ones({1})}), UserError);
  EXPECT_THROW(model.find("a.weight")->quantized(), InternalError);
}

TEST(OpenModel, NamesWhatIsWrong) {
  test::TempDir dir;
  EXPECT_THROW(open_model(dir / "none"), UserError);
  test::write_file(dir / "m/config.json", "{");
  EXPECT_THROW(open_model(dir / "m"), UserError);
  auto config = tiny_config();
  config["quantization_config"] = {{"quant_method", "hqq"}};
  test::write_file(dir / "m/config.json", config.dump());
  EXPECT_THROW(open_model(dir / "m"), UserError);
}

}  // namespace
}  // namespace satin::exporting
