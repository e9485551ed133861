// BitNet directories in transformers, directories of its own packing in Satin, refusals and damaged files.
#include "export/bitnet.h"

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class BitNet : public PackedFormat {
 protected:
  BitNet() { biases = false; }

  static quant::Scheme scheme(Method method, quant::Storage storage = quant::Storage::kBFloat16) {
    quant::Scheme made = make_scheme(method, method == Method::kBinary ? 1 : 2, 0);
    made.activations = quant::Activations::kInt8;
    made.scale_dtype = made.dequant_dtype = storage;
    return made;
  }

  /// A folder for bitnet_client.py.
  void add(const std::string& name, const ShippedModel& model) {
    const fs::path folder = dir / "cases" / name;
    fs::create_directories(folder);
    export_model(model, format("bitnet"), folder / "bitnet", false);
    const ShippedModel back = open_model(folder / "bitnet");
    EXPECT_EQ(back.kind, "bitnet");
    write_outputs(back, folder / "satin.safetensors");
  }

  std::string export_refusal(const ShippedModel& model) {
    return refusal([&] { export_model(model, format("bitnet"), dir / "out", true); });
  }
};

TEST_F(BitNet, PackingHasTheFormatsOrder) {
  const at::Tensor codes = at::tensor({0, 1, 2, 1, 2, 2, 0, 0}, at::kByte).view({8, 1});
  const at::Tensor bytes = pack_bitnet(codes);  // rows 0 2 4 6 and 1 3 5 7 share a byte
  EXPECT_TRUE(
      bytes.equal(at::tensor({0 | 2 << 2 | 2 << 4 | 0 << 6, 1 | 1 << 2 | 2 << 4 | 0 << 6}, at::kByte).view({2, 1})));
  EXPECT_TRUE(unpack_bitnet(bytes).equal(codes));
}

TEST_F(BitNet, TransformersComputesWithTheSameLevelsAndScales) {
  SATIN_NEEDS_PYTHON("transformers");
  SATIN_NEEDS_PYTHON("accelerate");
  add("bitnet", make_model(scheme(Method::kBitNet)));
  add("binary", make_model(scheme(Method::kBinary)));
  add("ternary float16", make_model(scheme(Method::kTernary, quant::Storage::kFloat16)));
  tied = false;
  overrides = {{"layers.1.mlp.up_proj", std::nullopt}, {"layers.0.self_attn.v_proj", std::nullopt}};
  add("dense layers and head", make_model(scheme(Method::kBitNet)));
  const auto found = test::run_python("export/bitnet_client.py " + (dir / "cases").string());
  ASSERT_EQ(found.exit_code, 0) << found.output;
  for (const char* line :
       {"= bitnet: 14 modules", "= binary: 14 modules", "= ternary float16: 14", "= dense layers and head: 12 modules"})
    EXPECT_NE(found.output.find(line), std::string::npos) << found.output;
}

TEST_F(BitNet, ReadsBothConventionsAsTransformersDoes) {
  SATIN_NEEDS_PYTHON("transformers");
  SATIN_NEEDS_PYTHON("accelerate");
  const auto made = test::run_python("export/bitnet_third_party.py " + dir.path().string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  for (const char* name : {"divides", "divides-by-powers", "multiplies"}) {
    SCOPED_TRACE(name);
    const ShippedModel model = open_model(dir / name);
    auto expected = read_tensors(dir / name / "expected");
    const at::Tensor tokens = expected.extract("tokens").mapped(), logits = expected.extract("logits").mapped();
    for (const auto& [tensor, want] : expected) {
      ASSERT_TRUE(model.find(tensor)) << tensor;
      EXPECT_TRUE(model.find(tensor)->values().equal(want)) << tensor;
    }
    const at::NoGradGuard no_grad;
    const auto decoder = build_decoder(model, {});
    const double difference = (decoder->logits(decoder->hidden(tokens)) - logits).abs().max().item<double>();
    EXPECT_LT(difference, 2e-3);                     // a few 8-bit inputs are rounded to the other side
    const std::string text = export_refusal(model);  // of float32 scales
    EXPECT_NE(text.find("scales are stored as"), std::string::npos) << text;
  }
}

TEST_F(BitNet, RefusesWhatItCannotHoldAndNamesTheAlternatives) {
  const auto expect = [](const std::string& text, const std::string& reason, const std::string& exact) {
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    EXPECT_NE(text.find("exactly: " + exact), std::string::npos) << text;
  };
  quant::Scheme grouped = scheme(Method::kTernary), silent = scheme(Method::kTernary), four = scheme(Method::kLsq);
  grouped.group_size = 64;
  silent.activations = quant::Activations::kNone;
  expect(export_refusal(make_model(grouped)), "one scale a tensor", "compressed-tensors");
  expect(export_refusal(make_model(silent)), "activations int8", "hf, compressed-tensors, gptq, awq");
  expect(export_refusal(make_model(four)), "levels are -1, 0 and 1", "compressed-tensors");
  expect(refusal([&] {
           check_exact(format("bitnet"), {{"a", scheme(Method::kTernary, quant::Storage::kFloat16)}}, at::kBFloat16);
         }),
         "train with scale_dtype bfloat16", "none");
  expect(refusal([&] {
           check_exact(format("bitnet"), {{"a", scheme(Method::kTernary), 6, 64}}, at::kBFloat16);
         }),
         "four share a byte", "compressed-tensors");
  biases = true;
  expect(export_refusal(make_model(scheme(Method::kTernary))), "has a bias", "compressed-tensors");
}

TEST_F(BitNet, DamagedFilesAreUserErrors) {
  export_model(make_model(scheme(Method::kTernary)), format("bitnet"), dir / "good", false);
  const auto good = nlohmann::json::parse(test::read_file(dir / "good/config.json"));
  std::map<std::string, at::Tensor> tensors = read_tensors(dir / "good");
  EXPECT_EQ(open_refusal(good, tensors), "");
  const std::string module = "model.layers.0.mlp.up_proj";
  for (const auto& [part, value, text] : std::vector<std::tuple<std::string, at::Tensor, std::string>>{
           {".weight", at::full_like(tensors[module + ".weight"], 255), "levels -1, 0 and 1"},
           {".weight", tensors[module + ".weight"].flatten(), "expected uint8"},
           {".weight", at::zeros({0, 128}, at::kByte), "expected uint8"},
           {".weight", tensors[module + ".weight"].to(at::kChar), "no packed weight"},
           {".weight", tensors[module + ".weight"].slice(0, 0, 4), "expected [192, 128]"},
           {".weight_scale", at::ones({2}, at::kBFloat16), ".weight_scale: expected"},
           {".weight_scale", at::ones({1}, at::kInt), ".weight_scale: expected"},
           {".weight_scale", at::full({1}, NAN, at::kBFloat16), "no finite weights"}}) {
    auto changed = tensors;
    changed[module + part] = value.contiguous();
    const std::string found = open_refusal(good, changed);
    EXPECT_NE(found.find(text), std::string::npos) << part << ": " << found;
  }
  auto changed = tensors;
  changed.erase(module + ".weight_scale");
  EXPECT_NE(open_refusal(good, changed).find("missing tensor"), std::string::npos);
  auto zero = tensors;
  zero[module + ".weight_scale"] = at::zeros({1}, at::kBFloat16);
  EXPECT_EQ(open_refusal(good, zero), "");
  for (const auto& [key, value, text] : std::vector<std::tuple<std::string, nlohmann::json, std::string>>{
           {"linear_class", "bitblas", "bitblas"},
           {"linear_class", 1, "linear_class"},
           {"linear_class", "bitlinear", "no finite weights"},
           {"quantization_mode", "online", "run time"},
           {"use_rms_norm", true, "use_rms_norm"}}) {
    auto config = good;
    config["quantization_config"][key] = value;
    EXPECT_NE(open_refusal(config, zero), "") << key << " " << value;
    if (key != "linear_class" || value.is_string())
      EXPECT_NE(open_refusal(config, zero).find(text), std::string::npos) << open_refusal(config, zero);
  }
}

}  // namespace
}  // namespace satin::exporting
