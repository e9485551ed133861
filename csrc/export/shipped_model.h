// The model as it is shipped: quantized weights as codes and scales, everything else rounded to config.json's dtype.
// Opened from a checkpoint, a Hugging Face directory or an exported artefact; written by the formats.
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "quant/codes.h"

namespace satin::exporting {

namespace fs = std::filesystem;

struct ShippedTensor {
  std::string name;  ///< Hugging Face name
  at::Tensor dense;  ///< in the shipped dtype; undefined when quantized
  std::optional<quant::QuantizedWeight> quantized;

  /// The values that a forward pass multiplies with, in the shipped dtype.
  at::Tensor values() const;
};

struct ShippedModel {
  std::string kind;          ///< "checkpoint" | "hf" | "compressed-tensors" | "gptq" | "awq"
  fs::path directory;        ///< where it was opened: tokenizer and generation files are copied from here
  nlohmann::json hf_config;  ///< config.json without quantization_config
  models::ModelConfig config;
  at::ScalarType dtype;  ///< of dense tensors and of dequantised weights
  std::vector<ShippedTensor> tensors;
  std::string kv_cache = "none";  ///< as quantization.kv_cache, of checkpoints

  const ShippedTensor* find(const std::string& name) const;
};

/// config.json's dtype: what dense tensors are rounded to and what weights dequantize to. (bfloat16 when it names
/// none.)
at::ScalarType shipped_dtype(const models::ModelConfig& config);

/// Opens any directory that satin or transformers wrote. Throws UserError: not a model directory, corrupt, or of a
/// quantization method that is not supported (named).
ShippedModel open_model(const fs::path& directory);

/// A dense decoder that computes with the shipped values, and with the activations and the KV cache of the schemes.
std::unique_ptr<models::Decoder> build_decoder(const ShippedModel& model, const nn::BuildOptions& options);

/// Sizes as a user counts them.
struct Footprint {
  int64_t num_parameters = 0, num_quantized = 0;
  double nominal_bits = 0;    ///< mean bits a quantized weight
  double effective_bits = 0;  ///< ... with scales and zero points
  int64_t size_bytes = 0;     ///< of the safetensors files in the directory
};
Footprint footprint(const ShippedModel& model);

}  // namespace satin::exporting
