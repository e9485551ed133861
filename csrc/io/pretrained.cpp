#include "io/pretrained.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <set>

#include "core/error.h"
#include "io/checkpoint.h"
#include "io/json_file.h"
#include "io/problems.h"

namespace satin::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

bool is_float(at::ScalarType type) {
  return type == at::kDouble || type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
}

/// What is wrong with the file's version of a parameter, or "".
std::string problem_with(const nn::Parameter& parameter, const TensorDirectory& tensors) {
  const at::IntArrayRef expected = parameter.full_shape;
  if (!tensors.contains(parameter.name)) return cat("missing: ", parameter.name, " ", expected);
  const TensorInfo& info = tensors.info(parameter.name);
  if (expected != at::IntArrayRef(info.shape))
    return cat("misshapen: ", parameter.name, ": expected ", expected, ", found ", at::IntArrayRef(info.shape));
  if (!is_float(info.dtype))
    return cat("wrong dtype: ", parameter.name, ": expected a floating one, found ", at::toString(info.dtype));
  return "";
}

/// A tensor that the decoder has no parameter for: what is wrong with it, or "" when it says nothing new.
std::string problem_with_extra(const std::string& name, const models::Decoder& decoder,
                               const TensorDirectory& tensors) {
  if (name.ends_with("rotary_emb.inv_freq")) return "";
  if (name != kHead || !decoder.config().tied_embeddings || !tensors.contains(kEmbedding)) return "extra: " + name;
  if (tensors.info(kHead).shape == tensors.info(kEmbedding).shape &&
      at::equal(tensors.tensor(kHead).to(at::kFloat), tensors.tensor(kEmbedding).to(at::kFloat)))
    return "";
  return cat("extra: ", kHead, " differs from ", kEmbedding, ", but config.json has tie_word_embeddings true");
}

void refuse_quantized(const fs::path& directory) {
  const nlohmann::json config = load_json_object(directory / "config.json");
  const auto quantization = config.find("quantization_config");
  if (quantization == config.end() || quantization->is_null()) return;
  std::string method = "unknown";
  if (quantization->is_object() && quantization->contains("quant_method")) {
    const nlohmann::json& value = (*quantization)["quant_method"];
    method = value.is_string() ? value.get<std::string>() : value.dump();
  }
  throw UserError(cat(directory.string(), ": expected full-precision weights, found a model quantized with ", method,
                      " (config.json: quantization_config); give the model that it was made from"));
}

}  // namespace

void load_weights(models::Decoder& decoder, const TensorDirectory& tensors, Quantizers quantizers) {
  std::vector<std::string> problems;
  std::set<std::string> known;
  const auto add = [&](const std::string& problem) {
    if (!problem.empty()) problems.push_back(problem);
  };
  for (const nn::Parameter& parameter : decoder.parameters().all()) {
    if (nn::is_quantizer(parameter.role) && quantizers == Quantizers::kAbsent) continue;
    known.insert(parameter.name);
    add(problem_with(parameter, tensors));
  }
  for (const std::string& name : tensors.names())
    if (!known.contains(name)) add(problem_with_extra(name, decoder, tensors));
  if (!problems.empty()) throw_problems(tensors.path().string() + " does not hold this model's tensors", problems);

  const at::NoGradGuard no_grad;
  for (const nn::Parameter& parameter : decoder.parameters().all())
    if (known.contains(parameter.name))
      at::Tensor(parameter.value)
          .copy_(parameter.is_split() ? tensors.rows(parameter.name, parameter.first_row, parameter.value.size(0))
                                      : tensors.tensor(parameter.name));
}

std::unique_ptr<models::Decoder> load_pretrained(const fs::path& directory, const nn::LinearFactory& factory,
                                                 const nn::BuildOptions& options) {
  if (!fs::is_directory(directory))
    throw UserError(cat("expected a model directory, found none at ", directory.string()));
  refuse_quantized(directory);
  const bool stored = is_checkpoint(directory) && !verify_checkpoint(directory).schemes.empty();
  const TensorDirectory tensors(directory);
  auto decoder = std::make_unique<models::Decoder>(models::load_model_config(directory), factory, options);
  load_weights(*decoder, tensors, stored ? Quantizers::kStored : Quantizers::kAbsent);
  return decoder;
}

}  // namespace satin::io
