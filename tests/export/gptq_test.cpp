// GPTQ files against a reader that shares no code with the writer, what the format refuses, and damaged files.
#include "export/gptq.h"

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

struct GptqCase {
  Method method;
  int bits;
  int64_t group_size;
  int version;  ///< 0: not asked for
};
void PrintTo(const GptqCase& c, std::ostream* out) {
  *out << quant::to_string(c.method) << " " << c.bits << " g" << c.group_size << " v" << c.version;
}

class Gptq : public PackedFormat {
 protected:
  std::string export_refusal(const ShippedModel& model, int version = 0) {
    return refusal([&] { export_model(model, *make_gptq_format(version), dir / "out", true); });
  }
};

class GptqCases : public Gptq, public testing::WithParamInterface<GptqCase> {};

TEST_P(GptqCases, UnpackedBitByBitItIsTheDenseExport) {
  SATIN_NEEDS_PYTHON("numpy");
  for (const auto storage : {quant::Storage::kBFloat16, quant::Storage::kFloat16}) {
    quant::Scheme scheme = make_scheme(GetParam().method, GetParam().bits, GetParam().group_size);
    scheme.scale_dtype = scheme.dequant_dtype = storage;
    const ShippedModel model = make_model(scheme, /*lowest_zero=*/GetParam().version == 1 ? 1 : 0);
    export_model(model, *make_gptq_format(GetParam().version), dir / "gptq", true);
    export_model(model, format("hf"), dir / "hf", true);
    const auto found =
        test::run_python("export/gptq_oracle.py " + (dir / "gptq").string() + " " + (dir / "hf").string());
    EXPECT_EQ(found.exit_code, 0) << found.output;
    const bool symmetric = !scheme.has_zero_point();
    const int version = GetParam().version ? GetParam().version : symmetric ? 1 : 2;
    EXPECT_EQ(found.output, "14 modules, " + std::to_string(std::max(2, scheme.bits)) + " bits, version " +
                                std::to_string(version) + ", sym " + (symmetric ? "True" : "False") + "\n");
    const ShippedModel back = open_model(dir / "gptq");
    EXPECT_EQ(back.kind, "gptq");
    at::NoGradGuard no_grad;
    const at::Tensor tokens = at::arange(20).view({1, 20});
    EXPECT_TRUE(
        build_decoder(back, {})->hidden(tokens).equal(build_decoder(open_model(dir / "hf"), {})->hidden(tokens)));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, GptqCases,
    testing::Values(GptqCase{Method::kLsq, 2, 64, 0}, GptqCase{Method::kLsq, 3, 32, 1},
                    GptqCase{Method::kLsq, 4, -1, 0}, GptqCase{Method::kLsq, 8, 64, 1},
                    GptqCase{Method::kMinMaxSymmetric, 2, -1, 2}, GptqCase{Method::kLsq, 3, -1, 2},
                    GptqCase{Method::kLsq, 4, 64, 2}, GptqCase{Method::kLsq, 8, -1, 2},
                    GptqCase{Method::kLsqAsymmetric, 2, 64, 0}, GptqCase{Method::kLsqAsymmetric, 2, 64, 1},
                    GptqCase{Method::kLsqAsymmetric, 3, 64, 2}, GptqCase{Method::kMinMaxAsymmetric, 3, -1, 1},
                    GptqCase{Method::kLsqAsymmetric, 4, -1, 0}, GptqCase{Method::kLsqAsymmetric, 4, 32, 1},
                    GptqCase{Method::kLsqAsymmetric, 8, 64, 0}, GptqCase{Method::kLsqAsymmetric, 8, -1, 1},
                    GptqCase{Method::kTernary, 2, -1, 0}, GptqCase{Method::kBinary, 1, 64, 0}));

TEST_F(Gptq, RefusesWhatItCannotHoldAndNamesTheAlternatives) {
  const auto expect = [](const std::string& text, const std::string& reason, const std::string& exact) {
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    EXPECT_NE(text.find("exactly: " + exact), std::string::npos) << text;
  };
  const quant::Scheme two = make_scheme(Method::kLsqAsymmetric, 2, 64), four = make_scheme(Method::kLsq, 4, 64);
  expect(export_refusal(make_model(two), 1), "--gptq-version 2", "hf, compressed-tensors, gptq, awq");
  expect(export_refusal(make_model(make_scheme(Method::kSeq, 2, 64))), "half-integers", "hf, compressed-tensors");
  expect(export_refusal(make_model(make_scheme(Method::kLsq, 5, 64))), "5-bit", "hf, compressed-tensors");
  expect(export_refusal(make_model(make_scheme(Method::kLsq, 3, -1), 0, 200)), "whole 32-bit words",
         "hf, compressed-tensors");
  quant::Scheme activations = four;
  activations.activations = quant::Activations::kInt8;
  expect(refusal([&] {
           check_exact(format("gptq"), {{"x.up_proj", activations}}, at::kBFloat16);
         }),
         "8-bit activations", "compressed-tensors");
  expect(refusal([&] {
           check_exact(format("gptq"), {{"x", make_scheme(Method::kOneBit, 1, -1)}}, at::kBFloat16);
         }),
         "second value vector", "none");
  // Before training, by the shapes and schemes alone; embeddings and the head are dense, whatever their scheme.
  check_exact(format("gptq"), {{"model.embed_tokens", four}, {"a", two}, {"lm_head", four}}, at::kBFloat16);
  expect(refusal([&] {
           check_exact(format("gptq"), {{"a", two}, {"b", four}}, at::kBFloat16);
         }),
         "one number of bits", "hf, compressed-tensors");
  EXPECT_THROW(make_gptq_format(3), UserError);
}

TEST_F(Gptq, RefusesScalesThatAreNotFloat16) {
  ShippedModel model = make_model(make_scheme(Method::kLsq, 4, 64));
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  quant::QuantizedWeight weight = model.find(name)->quantized();
  for (const double scale : {1e-7 /* 1.7 of float16's smallest steps */, 1e6}) {
    weight.scale[0][0] = scale;  // the model shares it
    const std::string text = export_refusal(model);
    EXPECT_NE(text.find("1 of 384 scales are not float16"), std::string::npos) << text;
    EXPECT_NE(text.find("exactly: hf, compressed-tensors"), std::string::npos) << text;
  }
}

// Engines that join layers look for the joined name, which must be there when all its parts are dense and only then.
TEST_F(Gptq, LeavesDenseLayersToClientsByName) {
  for (const char* name :
       {"layers.1.self_attn.v_proj.weight", "layers.1.mlp.up_proj.weight", "layers.1.mlp.gate_proj.weight"})
    overrides.emplace_back(name, std::nullopt);
  const ShippedModel model = make_model(make_scheme(Method::kLsq, 4, 64));
  export_model(model, format("gptq"), dir / "out", false);
  const auto config = nlohmann::json::parse(test::read_file(dir / "out/config.json"))["quantization_config"];
  std::vector<std::string> patterns;
  for (const auto& [pattern, rule] : config["dynamic"].items()) {
    patterns.push_back(pattern);
    EXPECT_EQ(rule, nlohmann::json::object());
  }
  EXPECT_EQ(patterns, (std::vector<std::string>{
                          "-:^model\\.layers\\.1\\.mlp\\.gate_proj$", "-:^model\\.layers\\.1\\.mlp\\.gate_up_proj$",
                          "-:^model\\.layers\\.1\\.mlp\\.up_proj$", "-:^model\\.layers\\.1\\.self_attn\\.v_proj$"}));
}

TEST_F(Gptq, DamagedFilesAreUserErrors) {
  export_model(make_model(make_scheme(Method::kLsq, 4, 64)), format("gptq"), dir / "good", false);
  const auto good = nlohmann::json::parse(test::read_file(dir / "good/config.json"));
  std::map<std::string, at::Tensor> tensors = read_tensors(dir / "good");
  EXPECT_EQ(open_refusal(good, tensors), "");
  // A file of another writer: no version, no order, and nothing that only we write.
  auto plain = good;
  plain["quantization_config"] = {{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 64}, {"desc_act", false}};
  auto unordered = tensors;
  std::erase_if(unordered, [](const auto& entry) { return entry.first.ends_with(".g_idx"); });
  EXPECT_EQ(open_refusal(plain, unordered), "");

  const std::string module = "model.layers.0.mlp.up_proj";
  const std::vector<Damaged> damages = {
      {".qweight", tensors[module + ".qweight"].to(at::kLong), ".qweight: expected int32"},
      {".qweight", tensors[module + ".qweight"].slice(0, 0, 15), "whole groups"},
      {".qweight", tensors[module + ".qweight"].slice(0, 0, 8), ".g_idx"},
      {".qweight", tensors[module + ".qweight"].slice(1, 0, 3), "whole words"},
      {".qweight", at::zeros({0, 8}, at::kInt), ".qweight: expected"},
      {".qweight", at::zeros({16}, at::kInt), ".qweight: expected"},
      {".qzeros", tensors[module + ".qzeros"].slice(0, 0, 1), ".qzeros: expected"},
      {".qzeros", tensors[module + ".qzeros"] + 1, "sym is true"},
      {".qzeros", at::full_like(tensors[module + ".qzeros"], -1), "clients differ"},
      {".scales", tensors[module + ".scales"].t().contiguous(), ".scales: expected"},
      {".scales", tensors[module + ".scales"].to(at::kFloat), ".scales: expected"},
      {".g_idx", tensors[module + ".g_idx"].flip(0), "activation order"},
      {".g_idx", tensors[module + ".g_idx"].slice(0, 1), ".g_idx: expected"}};
  expect_refusals(good, tensors, module, damages,
                  {{"bits", 5},
                   {"bits", 8},
                   {"bits", "four"},
                   {"group_size", 0},
                   {"group_size", 48},
                   {"group_size", nullptr},
                   {"desc_act", true},
                   {"pack_dtype", "int16"},
                   {"checkpoint_format", "marlin"},
                   {"checkpoint_format", 2},
                   {"checkpoint_format", "gptq_v2"},
                   {"dynamic", {{"+:.*up_proj", {{"bits", 8}}}}}});
  auto wide = good;
  wide["dtype"] = "float32";
  EXPECT_NE(open_refusal(wide, tensors), "");
  const std::string bytes = test::read_file(dir / "good/model.safetensors");
  for (const size_t size : {size_t{4}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    test::write_file(dir / "bad/config.json", good.dump());
    test::write_file(dir / "bad/model.safetensors", bytes.substr(0, size));
    EXPECT_NE(refusal([&] { open_model(dir / "bad"); }), "") << size;
  }
}

}  // namespace
}  // namespace satin::exporting
