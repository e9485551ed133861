// The model as it is shipped: quantized weights as codes and scales, everything else rounded to config.json's dtype.
// Opened from a checkpoint, a Hugging Face directory or an exported artefact; written by the formats. Opening reads
// names, shapes and schemes; tensors are read or made when they are asked for and are not kept, so that a model may be
// larger than memory.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "models/decoder.h"
#include "quant/codes.h"

namespace satin::exporting {

namespace fs = std::filesystem;

class ShippedTensor {
 public:
  /// In the shipped dtype, made by `load`.
  ShippedTensor(std::string name, std::vector<int64_t> shape, at::ScalarType dtype, std::function<at::Tensor()> load);
  /// Codes and scales of this scheme, made by `load`.
  ShippedTensor(std::string name, std::vector<int64_t> shape, const quant::Scheme& scheme,
                std::function<quant::QuantizedWeight()> load);
  /// Values that are there already.
  ShippedTensor(std::string name, const at::Tensor& dense);
  ShippedTensor(std::string name, const quant::QuantizedWeight& weight);

  std::string name;  ///< Hugging Face name
  std::vector<int64_t> shape;
  std::optional<quant::Scheme> scheme;  ///< of a quantized weight
  at::ScalarType dtype;                 ///< of values()
  double effective_bits;                ///< stored ones a weight, with scales, zero points and what else a format adds

  int64_t num_elements() const;
  /// The values that a forward pass multiplies with, in the shipped dtype. As quantized(), each call loads anew, from
  /// any thread. Throws UserError when what the file holds turns out to be damaged.
  at::Tensor values() const;
  /// Of a tensor with a scheme.
  quant::QuantizedWeight quantized() const;

 private:
  std::function<at::Tensor()> load_dense_;
  std::function<quant::QuantizedWeight()> load_quantized_;
};

/// Orders tensors by name.
struct ByName {
  using is_transparent = void;
  static std::string_view name(const ShippedTensor& tensor) { return tensor.name; }
  static std::string_view name(std::string_view name) { return name; }
  bool operator()(const auto& a, const auto& b) const { return name(a) < name(b); }
};

struct ShippedModel {
  std::string kind;          ///< "checkpoint" | "hf" | "compressed-tensors" | "gptq" | "awq" | "bitnet" | "gguf"
  fs::path directory;        ///< where it was opened (the file, of a GGUF): the tokenizer's files are copied from here
  nlohmann::json hf_config;  ///< config.json without quantization_config
  models::ModelConfig config;
  at::ScalarType dtype;  ///< of dense tensors and of dequantised weights
  std::set<ShippedTensor, ByName> tensors;
  std::string kv_cache = "none";  ///< as quantization.kv_cache, of checkpoints

  const ShippedTensor* find(std::string_view name) const;
  /// Throws UserError when there is one of this name (a weight packed and dense in one file, say).
  void add(ShippedTensor tensor);
};

/// config.json's dtype: what dense tensors are rounded to and what weights dequantize to. (bfloat16 when it names
/// none.)
at::ScalarType shipped_dtype(const models::ModelConfig& config);

/// The directory's files, which the tensors of an opened model read when they are asked.
using Files = std::shared_ptr<const io::TensorDirectory>;
/// A tensor as a file holds it.
ShippedTensor stored_tensor(const Files& files, const std::string& name);

/// Opens any directory that satin or transformers wrote, a GGUF file, or a directory with one and no config.json.
/// Throws UserError: not a model directory, corrupt, or of a quantization method that is not supported (named).
ShippedModel open_model(const fs::path& directory);

/// What a decoder multiplies with.
enum class WeightForm {
  kDense,   ///< the shipped values
  kPacked,  ///< codes and scales where a weight is quantized and the layout holds it (quant/packed_linear.h), else
            ///< values
};

/// A decoder that computes with the shipped values, and with the activations and the KV cache of the schemes. What is
/// packed, and what is not and why, is logged. Packed weights are no parameters of the decoder.
std::unique_ptr<models::Decoder> build_decoder(const ShippedModel& model, const nn::BuildOptions& options,
                                               WeightForm form = WeightForm::kDense);

/// Sizes as a user counts them.
struct Footprint {
  int64_t num_parameters = 0, num_quantized = 0;
  double nominal_bits = 0;    ///< mean bits a quantized weight
  double effective_bits = 0;  ///< ... with scales and zero points
  int64_t size_bytes = 0;     ///< of the safetensors files in the directory, or of the GGUF file
};
Footprint footprint(const ShippedModel& model);

}  // namespace satin::exporting
