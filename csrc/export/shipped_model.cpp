#include "export/shipped_model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "core/log.h"
#include "export/awq.h"
#include "export/bitnet.h"
#include "export/compressed_tensors.h"
#include "export/gguf.h"
#include "export/gptq.h"
#include "io/checkpoint.h"
#include "io/json_file.h"
#include "io/pretrained.h"
#include "quant/packed_linear.h"
#include "quant/wrapped_linear.h"

namespace satin::exporting {
namespace {

/// A checkpoint as it is shipped: master weights become codes and scales, the rest is rounded to the shipped dtype.
void read_checkpoint(const Files& files, const io::Manifest& manifest, ShippedModel& model) {
  model.kv_cache = manifest.kv_cache;
  for (const auto& name : files->names()) {
    if (quant::is_quantizer_parameter(name) || (quant::is_wrapper_parameter(name) && manifest.schemes.empty()))
      continue;
    const std::string module = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
    const auto scheme = manifest.schemes.find(module);
    const std::vector<int64_t>& shape = files->info(name).shape;
    if (scheme == manifest.schemes.end()) {
      if (quant::is_wrapper_parameter(name))
        model.add(stored_tensor(files, name));
      else
        model.add(
            {name, shape, model.dtype, [files, name, dtype = model.dtype] { return files->tensor(name).to(dtype); }});
      continue;
    }
    if (shape.size() != 2) throw UserError(cat(name, ": expected a matrix, found ", at::IntArrayRef(shape)));
    model.add({name, shape, scheme->second, [files, name, module, scheme = scheme->second] {
                 quant::QuantizerParameters parameters;
                 for (const quant::QuantizerParameter& parameter : quant::parameters_of(scheme))
                   if (const std::string stored = cat(module, ".", parameter.name); files->contains(stored))
                     parameters.*parameter.member = files->tensor(stored);
                 return quant::quantize_weight(scheme, files->tensor(name), parameters, module);
               }});
  }
}

/// Empty, or what is wrong with the tensor of this name.
std::string problem_of(const ShippedModel& model, const std::string& name, at::IntArrayRef shape) {
  const ShippedTensor* tensor = model.find(name);
  if (!tensor) return cat("\n  missing: ", name);
  if (shape == tensor->shape) return "";
  return cat("\n  ", name, ": expected ", shape, ", found ", at::IntArrayRef(tensor->shape));
}

[[noreturn]] void refuse_tensors(const ShippedModel& model, const std::string& problems) {
  throw UserError(cat(model.directory.string(), " does not hold the model of its config.json:", problems));
}

/// A decoder takes the memory that config.json says: its sizes must be those of tensors that are there.
void check_sizes(const ShippedModel& model) {
  const models::ModelConfig& c = model.config;
  std::string problems = problem_of(model, "model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  for (int64_t i = 0; i < c.num_layers && problems.empty(); ++i)
    problems =
        problem_of(model, cat("model.layers.", i, ".self_attn.q_proj.weight"),
                   {c.num_heads * c.head_dim, c.hidden_size}) +
        problem_of(model, cat("model.layers.", i, ".mlp.gate_proj.weight"), {c.intermediate_size, c.hidden_size});
  if (!problems.empty()) refuse_tensors(model, problems);
}

/// The layers of a decoder that multiply with codes, and why others do not.
struct PackedLayers {
  std::set<std::string> names;  ///< of weights
  int64_t bytes = 0;
  std::map<std::string, std::vector<std::string>> dense;  ///< quantized weights by reason

  /// nullptr where the weight is not quantized or the layout does not hold it.
  std::unique_ptr<nn::Linear> make(const ShippedModel& model, const ShippedTensor& weight, const nn::LinearSpec& spec,
                                   nn::ParameterStore& store) {
    if (!weight.scheme) return nullptr;
    if (const std::string problem = problem_of(model, weight.name, {spec.out_features, spec.in_features});
        !problem.empty())
      refuse_tensors(model, problem);
    std::string reason = quant::reason_against_packing(*weight.scheme, spec.in_features);
    if (reason.empty()) {
      const quant::QuantizedWeight quantized = weight.quantized();
      reason = quant::reason_against_packing(quantized);
      if (reason.empty()) {
        ops::PackedWeight packed = quant::pack(quantized).to(store.options().device);
        names.insert(weight.name);
        bytes += packed.bytes();
        return std::make_unique<quant::PackedLinear>(spec, std::move(packed), store);
      }
    }
    dense[reason].push_back(weight.name);
    return nullptr;
  }
  void log() const {
    size_t others = 0;
    std::string why;
    for (const auto& [reason, weights] : dense) {
      others += weights.size();
      why += cat("; dense: ", weights.size(), weights.size() == 1 ? " (" : " (among them ", weights.front(), ": ",
                 reason, ")");
    }
    log_info(cat("packed weights: ", names.size(), " of ", names.size() + others, " quantized matrices, ",
                 bytes / 1'000'000, ".", bytes / 100'000 % 10, " MB", why));
  }
};

/// Strict about names and shapes: the decoder that the configuration describes is the reference.
void check_tensors(const ShippedModel& model, models::Decoder& decoder, const PackedLayers& packed) {
  std::string problems;
  for (const auto& parameter : decoder.parameters().all())
    problems += problem_of(model, parameter.name, parameter.value.sizes());
  for (const auto& tensor : model.tensors) {
    if (decoder.parameters().find(tensor.name) || packed.names.count(tensor.name)) continue;
    if (tensor.name.ends_with("rotary_emb.inv_freq")) continue;
    const bool tied_head = model.config.tied_embeddings && tensor.name == "lm_head.weight";
    const ShippedTensor* embedding = model.find("model.embed_tokens.weight");
    if (!tied_head || !embedding || !tensor.values().equal(embedding->values()))
      problems += cat("\n  unexpected: ", tensor.name);
  }
  if (!problems.empty()) refuse_tensors(model, problems);
}

}  // namespace

at::ScalarType shipped_dtype(const models::ModelConfig& config) {
  if (config.dtype == "float16") return at::kHalf;
  if (config.dtype == "float32") return at::kFloat;
  return at::kBFloat16;
}

ShippedTensor::ShippedTensor(std::string name, std::vector<int64_t> shape, at::ScalarType dtype,
                             std::function<at::Tensor()> load)
    : name(std::move(name)),
      shape(std::move(shape)),
      dtype(dtype),
      effective_bits(8. * static_cast<double>(c10::elementSize(dtype))),
      load_dense_(std::move(load)) {}

ShippedTensor::ShippedTensor(std::string name, std::vector<int64_t> shape, const quant::Scheme& scheme,
                             std::function<quant::QuantizedWeight()> load)
    : name(std::move(name)),
      shape(std::move(shape)),
      scheme(scheme),
      dtype(quant::storage_dtype(scheme.dequant_dtype, at::kFloat)),
      effective_bits(scheme.effective_bits(this->shape.at(0), this->shape.at(1))),
      load_quantized_(std::move(load)) {}

ShippedTensor::ShippedTensor(std::string name, const at::Tensor& dense)
    : ShippedTensor(std::move(name), dense.sizes().vec(), dense.scalar_type(), [dense] { return dense; }) {}

ShippedTensor::ShippedTensor(std::string name, const quant::QuantizedWeight& weight)
    : ShippedTensor(std::move(name), weight.codes.sizes().vec(), weight.scheme, [weight] { return weight; }) {}

int64_t ShippedTensor::num_elements() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

at::Tensor ShippedTensor::values() const { return scheme ? quant::dequantize(load_quantized_()) : load_dense_(); }

quant::QuantizedWeight ShippedTensor::quantized() const {
  SATIN_CHECK(scheme, name, " is not quantized");
  return load_quantized_();
}

const ShippedTensor* ShippedModel::find(std::string_view name) const {
  const auto found = tensors.find(name);
  return found == tensors.end() ? nullptr : &*found;
}

void ShippedModel::add(ShippedTensor tensor) {
  if (find(tensor.name)) throw UserError(cat(directory.string(), " holds ", tensor.name, " twice"));
  tensors.insert(std::move(tensor));
}

ShippedTensor stored_tensor(const Files& files, const std::string& name) {
  const io::TensorInfo& info = files->info(name);
  return {name, info.shape, info.dtype, [files, name] { return files->tensor(name); }};
}

ShippedModel open_model(const fs::path& directory) {
  if (const fs::path file = gguf_file(directory); !file.empty()) return open_gguf(file);
  if (!fs::is_directory(directory))
    throw UserError(cat("expected a model directory, found ",
                        fs::exists(directory) ? "a file: " : "nothing: ", directory.string()));
  ShippedModel model;
  model.directory = directory;
  model.hf_config = io::load_json_object(directory / "config.json");
  model.config = models::parse_model_config(model.hf_config, (directory / "config.json").string());
  model.dtype = shipped_dtype(model.config);
  const auto files = std::make_shared<const io::TensorDirectory>(directory);
  if (io::is_checkpoint(directory)) {
    model.kind = "checkpoint";
    io::Manifest manifest = io::verify_checkpoint(directory, /*unread=*/"optimizer.safetensors");
    if (!manifest.quantizing) {
      manifest.schemes.clear();
      manifest.kv_cache = "none";
    }
    if (!manifest.schemes.empty())  // dequantised weights have one dtype, and config.json says which
      model.dtype = quant::storage_dtype(manifest.schemes.begin()->second.dequant_dtype, at::kFloat);
    model.hf_config.erase("torch_dtype");
    model.hf_config["dtype"] = model.dtype == at::kHalf    ? "float16"
                               : model.dtype == at::kFloat ? "float32"
                                                           : "bfloat16";
    read_checkpoint(files, manifest, model);
  } else if (const auto quantization = model.hf_config.find("quantization_config");
             quantization != model.hf_config.end() && !quantization->is_null()) {
    const bool named = quantization->is_object() && quantization->contains("quant_method") &&
                       (*quantization)["quant_method"].is_string();
    const std::string method = named ? (*quantization)["quant_method"].get<std::string>() : "";
    if (method == "compressed-tensors")
      read_compressed_tensors(files, *quantization, model);
    else if (method == "gptq")
      read_gptq(files, *quantization, model);
    else if (method == "awq")
      read_awq(files, *quantization, model);
    else if (method == "bitnet")
      read_bitnet(files, *quantization, model);
    else
      throw UserError(cat(directory.string(), ": quant_method '", method,
                          "' cannot be read; supported: compressed-tensors, gptq, awq, bitnet, and dense models"));
    model.kind = method;
    model.hf_config.erase("quantization_config");
  } else {
    model.kind = "hf";
    for (const auto& name : files->names()) model.add(stored_tensor(files, name));
  }
  return model;
}

std::unique_ptr<models::Decoder> build_decoder(const ShippedModel& model, const nn::BuildOptions& options,
                                               WeightForm form) {
  check_sizes(model);
  PackedLayers packed;
  const nn::LinearFactory wrapping = [&, dense = nn::dense_linear_factory()](
                                         const nn::LinearSpec& spec,
                                         nn::ParameterStore& store) -> std::unique_ptr<nn::Linear> {
    const ShippedTensor* weight = model.find(spec.name + ".weight");
    const auto plain = [&](const nn::LinearSpec& of) {
      auto layer = weight && form == WeightForm::kPacked ? packed.make(model, *weight, of, store) : nullptr;
      return layer ? std::move(layer) : dense(of, store);
    };
    const bool wraps = weight && weight->scheme && quant::needs_wrapping(*weight->scheme);
    if (!wraps) return plain(spec);
    const quant::Scheme& scheme = *weight->scheme;
    return std::make_unique<quant::WrappedLinear>(plain(quant::inner_spec(spec, scheme)), spec, scheme, store);
  };
  auto decoder = std::make_unique<models::Decoder>(model.config, wrapping, options);
  decoder->store_keys_and_values_as(
      models::kv_cache_format(model.kv_cache, cat(model.directory.string(), ": kv_cache")));
  check_tensors(model, *decoder, packed);
  if (form == WeightForm::kPacked) packed.log();
  at::NoGradGuard no_grad;
  for (const auto& parameter : decoder->parameters().all()) parameter.value.copy_(model.find(parameter.name)->values());
  return decoder;
}

Footprint footprint(const ShippedModel& model) {
  Footprint result;
  double nominal = 0, effective = 0;
  for (const auto& tensor : model.tensors) {
    const int64_t count = tensor.num_elements();
    result.num_parameters += count;
    if (!tensor.scheme) continue;
    result.num_quantized += count;
    nominal += tensor.scheme->nominal_bits() * static_cast<double>(count);
    effective += tensor.effective_bits * static_cast<double>(count);
  }
  if (result.num_quantized) {
    result.nominal_bits = nominal / static_cast<double>(result.num_quantized);
    result.effective_bits = effective / static_cast<double>(result.num_quantized);
  }
  if (fs::is_regular_file(model.directory)) {
    result.size_bytes = static_cast<int64_t>(fs::file_size(model.directory));
    return result;
  }
  for (const auto& entry : fs::directory_iterator(model.directory))
    if (entry.path().extension() == ".safetensors" && entry.path().filename() != "optimizer.safetensors")
      result.size_bytes += static_cast<int64_t>(entry.file_size());
  return result;
}

}  // namespace satin::exporting
