// gptq and awq directories in the program that people load them with.
#include <set>
#include <sstream>

#include "export/packed_format.h"

namespace satin::exporting {
namespace {

class GptqModelClient : public PackedFormat {
 protected:
  /// A folder for gptqmodel_client.py. After a prompt the tokens are Satin's own, greedily.
  void add(const std::string& name, const ShippedModel& model, const Format& format, at::Tensor tokens,
           int64_t num_new = 0) {
    const fs::path folder = dir / "cases" / name;
    fs::create_directories(folder);
    export_model(model, format, folder / "packed", false);
    export_model(model, exporting::format("hf"), folder / "hf", false);
    const at::NoGradGuard no_grad;
    const auto decoder = build_decoder(open_model(folder / "packed"), {});
    const int64_t prompt = num_new ? tokens.size(1) : 0;
    for (int64_t i = 0; i < num_new; ++i)
      tokens = at::cat({tokens, decoder->logits(decoder->hidden(tokens)).select(1, -1).argmax(-1, true)}, 1);
    io::write_safetensors(folder / "satin.safetensors", {{"tokens", tokens},
                                                         {"prompt", at::scalar_tensor(prompt, at::kLong)},
                                                         {"logits", decoder->logits(decoder->hidden(tokens))}});
  }

  /// Runs the client; its report, one line a case and loader. Fails when it finds a difference.
  std::vector<std::string> run() {
    const auto found = test::run_python("export/gptqmodel_client.py " + (dir / "cases").string());
    EXPECT_EQ(found.exit_code, 0) << found.output.substr(found.output.size() -
                                                         std::min<size_t>(3000, found.output.size()));
    std::vector<std::string> lines;
    std::istringstream in(found.output);
    for (std::string line; std::getline(in, line);)
      if (line.starts_with("= ")) lines.push_back(line);
    for (const auto& line : lines) std::cout << line << '\n';
    return lines;
  }

  static void expect_modules(const std::vector<std::string>& lines, const std::string& count) {
    for (const auto& line : lines) EXPECT_NE(line.find(": " + count + " modules"), std::string::npos) << line;
  }
};

TEST_F(GptqModelClient, ReadsTheDenseExportsWeights) {
  SATIN_NEEDS_PYTHON("gptqmodel");
  const at::Tensor tokens = at::arange(30).view({1, 30});
  int number = 0;
  for (const auto& [method, bits, group, version] : {std::tuple{Method::kLsq, 2, int64_t{32}, 1},
                                                     {Method::kLsq, 2, 64, 2},
                                                     {Method::kLsqAsymmetric, 2, 64, 1},
                                                     {Method::kLsqAsymmetric, 2, 128, 2},
                                                     {Method::kLsq, 3, 64, 1},
                                                     {Method::kLsqAsymmetric, 3, 32, 1},
                                                     {Method::kLsqAsymmetric, 3, -1, 2},
                                                     {Method::kLsq, 4, 128, 1},
                                                     {Method::kLsq, 4, -1, 2},
                                                     {Method::kLsqAsymmetric, 4, 64, 1},
                                                     {Method::kLsqAsymmetric, 4, -1, 2},
                                                     {Method::kLsq, 8, 64, 1},
                                                     {Method::kLsqAsymmetric, 8, 32, 1},
                                                     {Method::kLsqAsymmetric, 8, 64, 2},
                                                     {Method::kTernary, 2, -1, 0},
                                                     {Method::kBinary, 1, 64, 0}}) {
    quant::Scheme scheme = make_scheme(method, bits, group);
    scheme.scale_dtype = scheme.dequant_dtype = number % 2 ? quant::Storage::kFloat16 : quant::Storage::kBFloat16;
    const ShippedModel model = make_model(scheme, /*lowest_zero=*/version == 1 ? 1 : 0, 256);
    const std::string name = cat(number++, " ", quant::describe(scheme));
    add(cat(name, " gptq ", version), model, *make_gptq_format(version), tokens);
    if (bits > 2 && bits <= 4 && version == 1) add(name + " awq", model, format("awq"), tokens);
  }
  const std::vector<std::string> lines = run();
  EXPECT_EQ(lines.size(), 16u + 2 * 4);
  expect_modules(lines, "14");
}

// Layers that stay dense are named, in each client's own way; the head is one of its own and dense too.
TEST_F(GptqModelClient, ReadsModelsWithDenseLayers) {
  SATIN_NEEDS_PYTHON("gptqmodel");
  tied = false;
  for (const char* name : {"layers.1.self_attn.q_proj.weight", "layers.1.self_attn.k_proj.weight",
                           "layers.1.self_attn.v_proj.weight", "layers.0.mlp.up_proj.weight"})
    overrides.emplace_back(name, std::nullopt);
  const ShippedModel model = make_model(make_scheme(Method::kLsq, 4, 64));
  for (const char* name : {"gptq", "awq"}) add(name, model, format(name), at::arange(30).view({1, 30}));
  const std::vector<std::string> lines = run();
  EXPECT_EQ(lines.size(), 3u);
  expect_modules(lines, "10");
}

TEST_F(GptqModelClient, ContinuesATextAsSatinDoes) {
  SATIN_NEEDS_PYTHON("gptqmodel");
  SATIN_NEEDS_SHARED();
  const fs::path teacher = test::shared_dir() / "models/books-29m";
  ShippedModel model = open_model(teacher);
  model.dtype = at::kHalf;  // in bfloat16 the client's rounding changes the choice between two good tokens
  model.hf_config["dtype"] = "float16";
  quant::Scheme scheme = make_scheme(Method::kLsq, 4, 64);
  scheme.scale_dtype = scheme.dequant_dtype = quant::Storage::kFloat16;
  for (const auto& tensor : std::exchange(model.tensors, {}))
    if (tensor.name.ends_with("_proj.weight"))
      model.add({tensor.name, quant::round_to_nearest(tensor.values().to(at::kFloat), scheme)});
    else
      model.add({tensor.name, tensor.values().to(at::kHalf)});
  const auto prompt = nlohmann::json::parse(test::read_file(teacher / "reference.json"))["golden"]["input_ids"];
  const at::Tensor tokens = at::tensor(prompt.get<std::vector<int64_t>>(), at::kLong).unsqueeze(0);
  for (const char* name : {"gptq", "awq"}) add(name, model, format(name), tokens, /*num_new=*/8);
  const std::vector<std::string> lines = run();
  EXPECT_EQ(lines.size(), 3u);
  expect_modules(lines, "56");
}

}  // namespace
}  // namespace satin::exporting
