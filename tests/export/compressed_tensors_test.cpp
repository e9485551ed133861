// compressed-tensors directories in transformers, and directories of the library's own making in Satin.
#include "export/compressed_tensors.h"

#include <sstream>

#include "export/module_pattern.h"
#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class CompressedTensors : public PackedFormat {
 protected:
  static quant::Scheme with(quant::Scheme scheme, quant::Activations activations) {
    scheme.activations = activations;
    return scheme;
  }

  /// A folder for compressed_tensors_client.py; returns quantization_config.
  nlohmann::json add(const std::string& name, const ShippedModel& model) {
    const fs::path folder = dir / "cases" / name;
    fs::create_directories(folder);
    export_model(model, format("compressed-tensors"), folder / "ct", false);
    const ShippedModel back = open_model(folder / "ct");
    nlohmann::json activations = nlohmann::json::object();
    for (const auto& tensor : back.tensors) {
      if (!tensor.scheme || tensor.scheme->activations == quant::Activations::kNone) continue;
      EXPECT_EQ(tensor.scheme->activations, model.find(tensor.name)->scheme->activations);
      activations[tensor.name.substr(0, tensor.name.size() - 7)] = quant::to_string(tensor.scheme->activations);
    }
    write_outputs(back, folder / "satin.safetensors");
    test::write_file(folder / "activations.json", activations.dump());
    return nlohmann::json::parse(test::read_file(folder / "ct/config.json"))["quantization_config"];
  }
};

TEST_F(CompressedTensors, TransformersComputesWithTheSameWeightsAndInputs) {
  SATIN_NEEDS_PYTHON("compressed_tensors");
  SATIN_NEEDS_PYTHON("transformers");
  using enum quant::Activations;
  const quant::Scheme two = make_scheme(Method::kLsqAsymmetric, 2, 64), three = make_scheme(Method::kLsq, 3, 32),
                      four = make_scheme(Method::kLsqAsymmetric, 4, -1), eight = make_scheme(Method::kLsq, 8, -1);
  quant::Scheme half = four;
  half.scale_dtype = half.dequant_dtype = quant::Storage::kFloat16;

  add("a tied head", make_model(four));
  add("float16", make_model(half));
  add("int8 inputs, packed weights", make_model(with(two, kInt8)));
  add("float8 inputs", make_model(with(four, kFloat8)));
  add("int8 inputs, bytes", make_model(with(eight, kInt8)));
  tied = false;
  add("a dense head", make_model(two));
  overrides = {{"lm_head", three}};
  add("a packed head", make_model(two));
  // Bits, groups, symmetry and inputs by layer, in both layouts, and layers that stay dense.
  overrides = {{"layers.1.mlp", with(eight, kInt8)},
               {"o_proj.weight", three},
               {"layers.0.mlp.down_proj", with(three, kInt8)},
               {"k_proj.weight", four},
               {"layers.1.self_attn.v_proj.weight", std::nullopt}};
  const nlohmann::json mixed = add("mixed", make_model(two));
  EXPECT_EQ(mixed["format"], "mixed-precision");
  EXPECT_EQ(mixed["config_groups"].size(), 5u);

  const auto found = test::run_python("export/compressed_tensors_client.py " + (dir / "cases").string());
  ASSERT_EQ(found.exit_code, 0) << found.output;
  std::vector<std::string> lines;
  std::istringstream in(found.output);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("= ")) lines.push_back(line);
  for (const auto& line : lines) std::cout << line << "\n";
  EXPECT_EQ(lines.size(), 8u) << found.output;
  for (const auto& [name, modules] : {std::pair{"a dense head", "14 modules, 0 with"},
                                      {"a packed head", "15 modules, 0 with"},
                                      {"int8 inputs, bytes", "14 modules, 14 with"},
                                      {"mixed", "13 modules, 4 with"}})
    EXPECT_NE(found.output.find(std::string("= ") + name + ": " + modules), std::string::npos) << found.output;
}

TEST_F(CompressedTensors, BytesAreWrittenForBothSidesOfEightBits) {
  const quant::Scheme eight = with(make_scheme(Method::kLsq, 8, -1), quant::Activations::kInt8);
  const ShippedModel model = make_model(eight);
  export_model(model, format("compressed-tensors"), dir / "out", false);
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  const auto tensors = read_tensors(dir / "out");
  const quant::QuantizedWeight weight = model.find(name)->quantized();
  EXPECT_EQ(tensors.at(name).scalar_type(), at::kChar);
  EXPECT_TRUE(tensors.at(name).to(at::kInt).equal(quant::levels(weight)));
  EXPECT_TRUE(tensors.at(name + "_scale").equal(weight.scale));
  const auto config = nlohmann::json::parse(test::read_file(dir / "out/config.json"))["quantization_config"];
  EXPECT_EQ(config["format"], "int-quantized");
  EXPECT_EQ(config["config_groups"]["group_0"]["format"], "int-quantized");
}

TEST_F(CompressedTensors, ReadsWhatTheLibraryWrites) {
  SATIN_NEEDS_PYTHON("compressed_tensors");
  SATIN_NEEDS_PYTHON("transformers");
  const auto made = test::run_python("export/compressed_tensors_third_party.py " + dir.path().string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  for (const auto& [name, bits, group, symmetric, activations] :
       {std::tuple{"w4-g128", 4, int64_t{128}, true, quant::Activations::kNone},
        {"w4-g64-asymmetric", 4, 64, false, quant::Activations::kNone},
        {"w3-channel-asymmetric", 3, -1, false, quant::Activations::kNone},
        {"w8-channel", 8, -1, true, quant::Activations::kNone},
        {"w4-weight-order", 4, 64, true, quant::Activations::kNone},
        {"w8a8", 8, -1, true, quant::Activations::kInt8},
        {"w8a8-asymmetric-groups", 8, 64, false, quant::Activations::kInt8},
        {"w4a8-bytes", 4, -1, true, quant::Activations::kInt8},
        {"naive", 8, -1, true, quant::Activations::kNone}}) {
    SCOPED_TRACE(name);
    const ShippedModel model = open_model(dir / name);
    int num_quantized = 0;
    for (const auto& [tensor, want] : read_tensors(dir / name / "expected")) {
      const ShippedTensor* found = model.find(tensor);
      ASSERT_TRUE(found) << tensor;
      EXPECT_TRUE(found->values().equal(want)) << tensor;
      if (!found->scheme) continue;
      ++num_quantized;
      EXPECT_EQ(found->scheme->bits, bits);
      EXPECT_EQ(found->scheme->group_size, group);
      EXPECT_EQ(found->scheme->has_zero_point(), !symmetric);
      EXPECT_EQ(found->scheme->activations, activations);
    }
    EXPECT_EQ(num_quantized, 14);
    build_decoder(model, {});
  }
  // Two groups of targets: a pattern before the class, of several patterns the first in the alphabet.
  const ShippedModel mixed = open_model(dir / "mixed");
  for (const auto& [tensor, want] : read_tensors(dir / "mixed/expected"))
    EXPECT_TRUE(mixed.find(tensor)->values().equal(want)) << tensor;
  EXPECT_EQ(mixed.find("model.layers.1.mlp.up_proj.weight")->scheme->bits, 8);
  EXPECT_EQ(mixed.find("model.layers.0.mlp.up_proj.weight")->scheme->bits, 4);
}

TEST_F(CompressedTensors, WhatIsNotReadIsRefusedByName) {
  export_model(make_model(with(make_scheme(Method::kLsq, 8, -1), quant::Activations::kInt8)),
               format("compressed-tensors"), dir / "bytes", false);
  export_model(make_model(make_scheme(Method::kLsqAsymmetric, 4, 64)), format("compressed-tensors"), dir / "packed",
               false);
  const auto bytes = read_tensors(dir / "bytes"), packed = read_tensors(dir / "packed");
  const auto config = [&](const char* name) {
    return nlohmann::json::parse(test::read_file(dir / name / "config.json"));
  };
  const std::string group = "/quantization_config/config_groups/group_0";
  const std::vector<std::tuple<std::string, nlohmann::json, std::string>> settings = {
      {"/quantization_config/format", "float-quantized", "float-quantized"},
      {"/quantization_config/format", 3, "format 3"},
      {"/quantization_config/kv_cache_scheme", {{"num_bits", 8}}, "kv_cache_scheme"},
      {"/quantization_config/transform_config", {{"config_groups", {{"a", 1}}}}, "transform_config"},
      {"/quantization_config/sparsity_config", {{"format", "sparse-24-bitmask"}}, "sparsity_config"},
      {"/quantization_config/config_groups", nlohmann::json::object(), "no config_group targets"},
      {group + "/format", "nvfp4-pack-quantized", "nvfp4"},
      {group + "/weights", nullptr, "expected weights"},
      {group + "/weights/actorder", "group", "actorder \"group\""},
      {group + "/weights/type", "float", "float"},
      {group + "/weights/num_bits", int64_t{1} << 33, "8589934592 bits"},
      {group + "/weights/num_bits", 9, "9 bits"},
      {group + "/weights/strategy", "tensor_group", "tensor_group"},
      {group + "/output_activations", {{"num_bits", 8}}, "output_activations"},
      {group + "/input_activations", {{"num_bits", 4}}, "input_activations"},
      {group + "/targets", {"re:(a"}, "'(a'"},
      {group + "/targets", {"re:.*o_proj"}, "no config_group targets"}};
  for (const auto& [key, value, text] : settings) {
    auto changed = config("packed");
    changed[nlohmann::json::json_pointer(key)] = value;
    const std::string found = open_refusal(changed, packed);
    EXPECT_NE(found.find(text), std::string::npos) << key << ": " << found;
  }
  const std::string module = "model.layers.0.mlp.up_proj";
  for (const auto& [part, value, text] : std::vector<std::tuple<std::string, at::Tensor, std::string>>{
           {".weight_g_idx", at::zeros({128}, at::kInt), "activation order"},
           {".weight_zero_point", at::zeros({1, 1}, at::kInt), ".weight_zero_point: expected"},
           {".weight_shape", at::tensor({int64_t{1} << 40, int64_t{128}}), "does not fit"},
           {".weight_scale", packed.at(module + ".weight_scale").to(at::kFloat), ".weight_scale: expected"}}) {
    auto changed = packed;
    changed[module + part] = value;
    const std::string found = open_refusal(config("packed"), changed);
    EXPECT_NE(found.find(text), std::string::npos) << part << ": " << found;
  }
  auto changed = bytes;
  changed[module + ".weight_scale"] = bytes.at(module + ".weight_scale").slice(0, 1).contiguous();
  EXPECT_NE(open_refusal(config("bytes"), changed).find(".weight_scale: expected"), std::string::npos);
  auto narrow = config("bytes");
  narrow[nlohmann::json::json_pointer(group + "/weights/num_bits")] = 4;
  EXPECT_NE(open_refusal(narrow, bytes).find("expected 4-bit integers, -8 to 7"), std::string::npos);
}

TEST(ModulePattern, MatchesFromTheStartAndStops) {
  EXPECT_TRUE(matches_from_start("model\\.layers\\.[02]\\.", "model.layers.2.mlp"));
  EXPECT_FALSE(matches_from_start("layers", "model.layers.2.mlp"));
  EXPECT_TRUE(matches_from_start("", "x"));
  EXPECT_THROW(matches_from_start("(", "x"), UserError);
  EXPECT_THROW(matches_from_start("(a|aa)+[bc]", std::string(60, 'a')), UserError);
}

}  // namespace
}  // namespace satin::exporting
