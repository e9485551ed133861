// GGUF files: what is written comes back bit for bit, other readers see the same numbers, and what is not exact is
// refused.
#include <algorithm>
#include <set>

#include "gguf_model.h"

namespace satin::exporting {
namespace {

class Gguf : public GgufModel {
 protected:
  void expect_equal(const ShippedModel& written, const ShippedModel& read, bool schemes = true) {
    EXPECT_EQ(written.tensors.size(), read.tensors.size());
    for (const auto& tensor : written.tensors) {
      const ShippedTensor* back = read.find(tensor.name);
      ASSERT_TRUE(back) << tensor.name;
      EXPECT_TRUE(tensor.values().equal(back->values())) << tensor.name;
      EXPECT_EQ(tensor.values().scalar_type(), back->values().scalar_type()) << tensor.name;
      ASSERT_EQ(tensor.scheme.has_value(), back->scheme.has_value()) << tensor.name;
      if (!tensor.scheme) continue;
      EXPECT_TRUE(!schemes || *tensor.scheme == *back->scheme) << tensor.name;
      const quant::QuantizedWeight a = tensor.quantized(), b = back->quantized();
      EXPECT_TRUE(a.codes.equal(b.codes) && a.scale.equal(b.scale) && a.zero_point.equal(b.zero_point)) << tensor.name;
    }
  }
};

TEST_F(Gguf, EveryGridComesBackAndOtherReadersSeeIt) {
  const struct {
    Method method;
    int bits;
    int64_t group_size;
    std::string type;
    int lowest_zero = 0, highest_zero = 255;
  } table[] = {{Method::kBinary, 1, 128, "Q1_0"},
               {Method::kTernary, 2, 256, "TQ1_0"},
               {Method::kBitNet, 2, 0, "TQ1_0"},
               {Method::kTernary, 2, 64, "Q2_0"},
               {Method::kLsq, 2, 64, "Q2_0"},
               {Method::kLsqAsymmetric, 2, 64, "Q2_0", 1, 2},
               {Method::kLsqAsymmetric, 2, 64, "Q4_0"},
               {Method::kLsqAsymmetric, 2, 256, "Q2_K"},
               {Method::kSeq, 2, -1, "Q2_K"},
               {Method::kLsq, 3, 256, "Q3_K"},
               {Method::kMinMaxAsymmetric, 3, 128, "Q4_0"},
               {Method::kLsq, 4, 32, "Q4_0"},
               {Method::kLwc, 4, 256, "Q4_K"},
               {Method::kLsqAsymmetric, 4, 64, "Q4_1", 0, 8},
               {Method::kLsqAsymmetric, 4, 64, "Q5_0"},
               {Method::kLsq, 6, 256, "Q6_K"},
               {Method::kLsq, 8, 64, "Q8_0"}};
  std::string pairs;
  int num_cases = 0;
  for (const auto& row : table)
    for (const auto storage : {quant::Storage::kBFloat16, quant::Storage::kFloat16}) {
      if (storage == quant::Storage::kFloat16 && row.type != "Q2_K" && row.type != "Q4_0") continue;  // two will do
      const auto scheme = make_scheme(row.method, row.bits, row.group_size, storage);
      SCOPED_TRACE(quant::describe(scheme));
      fs::remove_all(dir / "out");
      const ShippedModel model =
          make_model(scheme, nlohmann::json::object(), row.lowest_zero, row.highest_zero, /*all=*/true);
      export_model(model, format("gguf"), dir / "out", false);
      std::set<std::string> files;
      for (const auto& entry : fs::directory_iterator(dir / "out")) files.insert(entry.path().filename().string());
      EXPECT_EQ(files, (std::set<std::string>{"README.md", "model.gguf"}));
      const ShippedModel back = open_model(dir / "out");
      EXPECT_EQ(back.kind, "gguf");
      EXPECT_EQ(back.hf_config, model.hf_config);
      expect_equal(model, back);
      const std::string bytes = test::read_file(dir / "out/model.gguf");
      for (const auto& tensor : gguf::parse_header(std::as_bytes(std::span(bytes)), "out").tensors)
        EXPECT_EQ(tensor.type->name, tensor.shape.size() == 2 ? row.type : "F32") << tensor.name;
      const std::string place = (dir / ("case" + std::to_string(num_cases++))).string();
      write_reference(model, place);
      fs::rename(dir / "out/model.gguf", place + "/model.gguf");
      pairs += " " + place + "/model.gguf " + place;
    }
  SATIN_NEEDS_PYTHON("gguf");
  const auto checked = test::run_python("export/gguf_oracle.py" + pairs);
  EXPECT_EQ(checked.exit_code, 0) << checked.output;
  EXPECT_EQ(std::ranges::count(checked.output, '\n'), num_cases) << checked.output;
}

TEST_F(Gguf, OtherProgramsFilesAreDenseModels) {
  for (const char* type : {"", "Q8_0", "F16", "BF16", "F32"}) {
    const bool half = std::string(type) == "F16";
    const auto storage = half ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
    const ShippedModel model = make_model(make_scheme(Method::kLsq, 4, 64, storage));
    fs::remove_all(dir / "out.gguf");
    export_model(model, *make_gguf_format(type), dir / "out.gguf", false);
    strip_own_keys(dir / "out.gguf", dir / "other/model.gguf");
    const ShippedModel back = open_model(dir / "other");
    const bool dense = std::string(type) == "F16" || std::string(type) == "BF16";
    EXPECT_EQ(back.dtype, half ? at::kHalf : dense ? at::kBFloat16 : at::kFloat);
    EXPECT_EQ(back.config.head_dim, 64);
    EXPECT_EQ(back.hf_config["rms_norm_eps"], 1e-5);
    EXPECT_EQ(back.config.tied_embeddings, true);
    EXPECT_EQ(back.config.eos_token_id, 262);
    EXPECT_EQ(back.tensors.size(), model.tensors.size());
    for (const auto& tensor : model.tensors) {
      const ShippedTensor* found = back.find(tensor.name);
      ASSERT_TRUE(found) << tensor.name;
      EXPECT_FALSE(found->scheme);
      const at::Tensor want =
          std::string(type).empty() || std::string(type) == "Q8_0" ? exact_values(tensor) : tensor.values();
      EXPECT_TRUE(found->values().to(at::kFloat).equal(want.to(at::kFloat))) << type << " " << tensor.name;
    }
    build_decoder(back, {});
    fs::remove_all(dir / "hf");
    export_model(back, format("hf"), dir / "hf", false);  // and it is exported as any model
    EXPECT_EQ(tokenizer::Tokenizer::load(dir / "hf").encode("the 12 <word>"),
              open_tokenizer(dir / "out.gguf").encode("the 12 <word>"));
  }
}

TEST_F(Gguf, ConfigurationsComeBackFromTheKeysAlone) {
  const nlohmann::json cases[] = {{{"tie_word_embeddings", false}},
                                  {{"attention_bias", true}, {"mlp_bias", true}},
                                  {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}}}},
                                  {{"rope_scaling",
                                    {{"rope_type", "llama3"},
                                     {"factor", 32.0},
                                     {"low_freq_factor", 1.0},
                                     {"high_freq_factor", 4.0},
                                     {"original_max_position_embeddings", 8192}}},
                                   {"rope_theta", 500000.0}},
                                  {{"model_type", "mistral"}, {"sliding_window", nullptr}},
                                  {{"model_type", "qwen2"}, {"num_key_value_heads", 4}},
                                  {{"model_type", "qwen3"}, {"head_dim", 32}, {"rms_norm_eps", 1e-6}}};
  for (const auto& changes : cases) {
    SCOPED_TRACE(changes.dump());
    fs::remove_all(dir / "out.gguf");
    const ShippedModel model = make_model(make_scheme(Method::kLsq, 2, 64), changes);
    export_model(model, format("gguf"), dir / "out.gguf", false);
    expect_equal(model, open_model(dir / "out.gguf"));
    strip_own_keys(dir / "out.gguf", dir / "other.gguf");
    const ShippedModel back = open_model(dir / "other.gguf");
    const models::ModelConfig &a = model.config, &b = back.config;
    EXPECT_EQ(b.model_type, a.model_type == "mistral" ? "llama" : a.model_type);
    EXPECT_EQ(std::tie(a.vocab_size, a.hidden_size, a.intermediate_size, a.num_layers, a.num_heads, a.num_kv_heads),
              std::tie(b.vocab_size, b.hidden_size, b.intermediate_size, b.num_layers, b.num_heads, b.num_kv_heads));
    EXPECT_EQ(
        std::tie(a.head_dim, a.max_position_embeddings, a.rms_norm_eps, a.tied_embeddings, a.qkv_bias, a.mlp_bias),
        std::tie(b.head_dim, b.max_position_embeddings, b.rms_norm_eps, b.tied_embeddings, b.qkv_bias, b.mlp_bias));
    EXPECT_EQ(std::tie(a.rope.theta, a.rope.type, a.rope.factor, a.rope.low_freq_factor, a.rope.high_freq_factor),
              std::tie(b.rope.theta, b.rope.type, b.rope.factor, b.rope.low_freq_factor, b.rope.high_freq_factor));
    at::NoGradGuard no_grad;
    const at::Tensor tokens = at::arange(20).view({1, 20});
    fs::remove_all(dir / "reference");
    write_reference(model, dir / "reference");
    const auto run = [&](const ShippedModel& opened) {
      auto decoder = build_decoder(opened, {});
      return decoder->logits(decoder->hidden(tokens));
    };
    EXPECT_TRUE(run(back).equal(run(open_model(dir / "reference"))));
  }
}

TEST_F(Gguf, RefusesWhatIsNotExact) {
  const auto export_as = [&](const ShippedModel& model, const std::string& type) {
    return refusal([&] { export_model(model, *make_gguf_format(type), dir / "out", false); });
  };
  const ShippedModel three = make_model(make_scheme(Method::kLsq, 3, 64));
  std::string found = export_as(three, "Q3_K");
  EXPECT_NE(found.find("a block of 256 weights has one scale, groups are of 64; exact types: Q4_0 (4.5 bits)"),
            std::string::npos)
      << found;
  EXPECT_NE(found.find("or train with group_size 256 for Q3_K"), std::string::npos) << found;
  EXPECT_NE(export_as(three, "F16").find("values are not F16 values"), std::string::npos);
  EXPECT_NE(export_as(three, "Q4_X").find("unknown GGUF type 'Q4_X'; did you mean"), std::string::npos)
      << export_as(three, "Q4_X");
  EXPECT_NE(export_as(make_model(make_scheme(Method::kLsqAsymmetric, 8, 64)), "")
                .find("no packed type is exact; or dense, --gguf-type BF16"),
            std::string::npos);
  EXPECT_NE(export_as(make_model(make_scheme(Method::kLsqAsymmetric, 2, 64)), "Q2_0").find("it holds levels -1 ... 2"),
            std::string::npos);
  EXPECT_NE(export_as(make_model(std::nullopt), "Q4_0").find("the model has no quantized layer"), std::string::npos);
  ShippedModel large = make_model(make_scheme(Method::kLsq, 4, 64));
  quant::QuantizedWeight weight = large.find("model.layers.1.mlp.up_proj.weight")->quantized();
  weight.scale[3][2] = 1e6;
  large.tensors.erase(large.tensors.find("model.layers.1.mlp.up_proj.weight"));
  large.add({"model.layers.1.mlp.up_proj.weight", weight});
  found = export_as(large, "");
  EXPECT_NE(found.find("model.layers.1.mlp.up_proj.weight: 1 of 2048 scales are not float16 values"), std::string::npos)
      << found;
  EXPECT_FALSE(fs::exists(dir / "out"));
  auto int8 = make_scheme(Method::kLsq, 4, 64);
  int8.activations = quant::Activations::kInt8;
  EXPECT_NE(export_as(make_model(int8), "").find("8-bit activations"), std::string::npos);
}

TEST_F(Gguf, OutputsAreReplacedOnlyWhenAsked) {
  const ShippedModel model = make_model(make_scheme(Method::kLsq, 4, 64));
  for (const char* name : {"out", "out.gguf"}) {
    export_model(model, format("gguf"), dir / name, false);
    EXPECT_NE(refusal([&] { export_model(model, format("gguf"), dir / name, false); }).find("exists"),
              std::string::npos);
    export_model(model, format("gguf"), dir / name, true);
    expect_equal(model, open_model(dir / name));
  }
  EXPECT_TRUE(fs::is_regular_file(dir / "out.gguf"));
  EXPECT_NE(refusal([&] { export_model(open_model(dir / "out.gguf"), format("gguf"), dir / "out.gguf", true); }), "");
  fs::copy_file(dir / "out.gguf", dir / "out/second.gguf");
  EXPECT_NE(refusal([&] { open_model(dir / "out"); }).find("several GGUF files"), std::string::npos);
  const ShippedModel again = open_model(dir / "out.gguf");
  export_model(again, format("gguf"), dir / "again.gguf", false);
  EXPECT_EQ(test::read_file(dir / "again.gguf").size(), test::read_file(dir / "out.gguf").size());
  expect_equal(model, open_model(dir / "again.gguf"));
  export_model(again, format("compressed-tensors"), dir / "ct", false);
  expect_equal(model, open_model(dir / "ct"), /*schemes=*/false);  // it has no place for how scales started
}

}  // namespace
}  // namespace satin::exporting
