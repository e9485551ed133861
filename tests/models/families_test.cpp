// Every family against transformers, and the real teacher against its published reference.
#include <ATen/core/grad_mode.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "models/decoder.h"
#include "support/tensor_archive.h"

namespace satin::models {
namespace {

using Archive = std::map<std::string, at::Tensor>;

/// Fills by name; the archive and the model must hold the same names and shapes.
void load_weights(Decoder& decoder, const Archive& archive) {
  const at::NoGradGuard no_grad;
  size_t num_weights = 0;
  for (const auto& entry : archive) num_weights += entry.first.starts_with("weight:");
  EXPECT_EQ(num_weights, decoder.parameters().all().size());
  for (const nn::Parameter& parameter : decoder.parameters().all()) {
    const auto found = archive.find("weight:" + parameter.name);
    ASSERT_NE(found, archive.end()) << parameter.name;
    ASSERT_EQ(found->second.sizes(), parameter.value.sizes()) << parameter.name;
    at::Tensor(parameter.value).copy_(found->second);
  }
}

at::Tensor greedy(Decoder& decoder, const at::Tensor& prompt, int64_t num_new) {
  KvCache cache;
  at::Tensor ids = prompt, next = prompt;
  for (int64_t i = 0; i < num_new; ++i) {
    const at::Tensor logits = decoder.logits(decoder.hidden(next, {.cache = &cache}));
    next = logits.select(1, -1).argmax(-1, true);
    ids = at::cat({ids, next}, 1);
  }
  return ids;
}

const char* const kCases[] = {"llama2",       "llama3_scaled", "llama_linear_biases", "smollm2", "mistral", "qwen2",
                              "qwen2_untied", "qwen3",         "qwen3_biases"};

TEST(Families, LogitsAndGreedyTokensEqualTransformers) {
  SATIN_NEEDS_PYTHON("transformers");
  const test::TempDir dir;
  const auto made = test::run_python("models/make_models.py " + dir.path().string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  const at::NoGradGuard no_grad;
  for (const char* name : kCases) {
    SCOPED_TRACE(name);
    const Archive oracle = test::load_tensor_archive(dir / name / "oracle.pt");
    Decoder decoder(load_model_config(dir / name), nn::dense_linear_factory(), {});
    load_weights(decoder, oracle);
    const at::Tensor logits = decoder.logits(decoder.hidden(oracle.at("ids")));
    const double error = test::max_difference(logits, oracle.at("logits"));
    std::printf("%-20s largest logit %.2f, largest difference %.2e\n", name, logits.abs().max().item<double>(), error);
    EXPECT_LT(error, 1e-4);
    const at::Tensor expected = oracle.at("greedy");
    EXPECT_TRUE(at::equal(greedy(decoder, expected.narrow(1, 0, 8), expected.size(1) - 8), expected));
  }
}

/// The bytes of a single safetensors file, read here on purpose: this room's tests do not depend on io.
Archive read_safetensors(const std::filesystem::path& path) {
  const std::string bytes = satin::read_file(path);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  const auto header = nlohmann::json::parse(bytes.substr(8, header_bytes));
  Archive archive;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    EXPECT_EQ(entry["dtype"], "BF16");
    const char* begin = bytes.data() + 8 + header_bytes + entry["data_offsets"][0].get<size_t>();
    at::Tensor values = at::empty(entry["shape"].get<std::vector<int64_t>>(), at::kBFloat16);
    std::memcpy(values.data_ptr(), begin, values.nbytes());
    archive.emplace("weight:" + name, values);
  }
  return archive;
}

TEST(Teacher, ReproducesItsReference) {
  SATIN_NEEDS_SHARED();
  const auto dir = test::shared_dir() / "models/books-29m";
  const auto golden = nlohmann::json::parse(satin::read_file(dir / "reference.json"))["golden"];
  const at::NoGradGuard no_grad;
  std::vector<at::Device> devices = {at::kCPU};
  if (at::hasCUDA()) devices.push_back(at::Device(at::kCUDA, 0));
  for (const at::Device device : devices) {
    SCOPED_TRACE(device.str());
    Decoder decoder(load_model_config(dir), nn::dense_linear_factory(), {.device = device});
    load_weights(decoder, read_safetensors(dir / "model.safetensors"));
    const at::Tensor prompt = at::tensor(golden["input_ids"].get<std::vector<int64_t>>()).unsqueeze(0);
    const at::Tensor logits = decoder.logits(decoder.hidden(prompt)).cpu()[0];
    const at::Tensor expected_sums = at::tensor(golden["logsumexp"].get<std::vector<double>>(), at::kDouble);
    double error = test::max_difference(at::logsumexp(logits.to(at::kDouble), -1), expected_sums);
    for (const auto& [id, value] : golden["last_top5"].get<std::vector<std::pair<int64_t, double>>>())
      error = std::max(error, std::abs(logits[-1][id].item<double>() - value));
    std::printf("books-29m on %s: largest difference %.2e\n", device.str().c_str(), error);
    EXPECT_LT(error, 2e-3);
    const auto tokens = golden["greedy_60"].get<std::vector<int64_t>>();
    const int64_t num_new = static_cast<int64_t>(tokens.size()) - prompt.size(1);
    EXPECT_TRUE(at::equal(greedy(decoder, prompt.to(device), num_new).cpu()[0], at::tensor(tokens)));
  }
}

}  // namespace
}  // namespace satin::models
