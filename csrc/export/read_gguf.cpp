// Reading GGUF; gguf.h has the keys.
#include <ATen/ATen.h>

#include "core/error.h"
#include "core/file.h"
#include "export/gguf.h"
#include "export/gguf_grids.h"
#include "export/gguf_keys.h"
#include "export/gguf_tokenizer.h"
#include "export/pack.h"
#include "io/scheme_json.h"
#include "quant/policy.h"

namespace satin::exporting {
namespace {

using gguf::BlockType;
using gguf::TensorEntry;
using gguf::Type;

/// An open file: its header, and its bytes by memory map.
struct File {
  explicit File(const fs::path& path)
      : map(path), where(path.string()), header(gguf::parse_header(map.bytes(), where)) {}

  std::span<const std::byte> bytes(const TensorEntry& tensor) const {
    return map.bytes().subspan(header.data_begin + tensor.begin, tensor.bytes());
  }

  MappedFile map;
  std::string where;
  gguf::Header header;
};
using Shared = std::shared_ptr<const File>;

at::ScalarType natural_dtype(const BlockType& type) {
  return type.type == Type::kF16 ? at::kHalf : type.type == Type::kBF16 ? at::kBFloat16 : at::kFloat;
}

/// Values by the format's own rule, in the file's order.
at::Tensor dense_values(const File& file, const TensorEntry& tensor) {
  const std::span<const std::byte> bytes = file.bytes(tensor);
  if (natural_dtype(*tensor.type) != at::kFloat) {
    at::Tensor values = at::empty(tensor.shape, natural_dtype(*tensor.type));
    std::copy(bytes.begin(), bytes.end(), static_cast<std::byte*>(values.mutable_data_ptr()));
    return values;
  }
  at::Tensor values = at::empty(tensor.shape, at::kFloat);
  const auto columns = static_cast<size_t>(tensor.shape.back());
  float* out = values.mutable_data_ptr<float>();
  for (int64_t row = 0; row < tensor.num_rows(); ++row, out += columns)
    gguf::dequantize(*tensor.type, bytes.subspan(static_cast<size_t>(row) * tensor.row_bytes(), tensor.row_bytes()),
                     {out, columns});
  return values;
}

/// Back from the file's order of rows.
at::Tensor restored(const at::Tensor& rows, const at::Tensor& order) {
  return order.defined() ? rows.index_select(0, order.argsort()) : rows;
}

/// [rows, groups] int32 in the file's order, or undefined.
at::Tensor zero_points(const File& file, const TensorEntry& tensor, const quant::Scheme& scheme) {
  if (!gguf::needs_zero_points(*tensor.type, scheme)) return {};
  const std::string key = "satin.zero_points." + tensor.name;
  const auto* bytes = gguf::array_of<uint8_t>(file.header, key, file.where);
  const int64_t num_rows = tensor.shape[0], num_groups = scheme.groups(tensor.shape[1]), count = num_rows * num_groups;
  const int64_t num_words = (count * scheme.bits + 31) / 32;
  if (!bytes || static_cast<int64_t>(bytes->size()) != 4 * num_words)
    throw UserError(cat(file.where, ": key ", key, ": expected ", 4 * num_words, " bytes, found ",
                        bytes ? cat(bytes->size()) : "none"));
  at::Tensor words = at::empty({1, num_words}, at::kInt);
  std::copy(bytes->begin(), bytes->end(), static_cast<uint8_t*>(words.mutable_data_ptr()));
  return unpack_bits(words, scheme.bits, count).view({num_rows, num_groups}).to(at::kInt);
}

ShippedTensor dense_tensor(const Shared& file, const TensorEntry& tensor, const std::string& name,
                           const at::Tensor& order, at::ScalarType dtype) {
  return {name, tensor.shape, dtype,
          [file, &tensor, order, dtype] { return restored(dense_values(*file, tensor), order).to(dtype); }};
}

ShippedTensor quantized_tensor(const Shared& file, const TensorEntry& tensor, const std::string& name,
                               const at::Tensor& order, const quant::Scheme& scheme) {
  const std::string where = cat(file->where, ": ", tensor.name);
  if (tensor.shape.size() != 2)
    throw UserError(cat(where, ": expected a matrix, found ", tensor.shape.size(), " dimensions"));
  quant::check_fits(scheme, where, tensor.shape[1]);
  ShippedTensor result(name, tensor.shape, scheme, [file, &tensor, order, scheme, where] {
    const quant::QuantizedWeight weight =
        gguf::read_blocks(*tensor.type, scheme, tensor.shape[0], tensor.shape[1], file->bytes(tensor),
                          zero_points(*file, tensor, scheme), where);
    return quant::QuantizedWeight{scheme, restored(weight.codes, order), restored(weight.scale, order),
                                  restored(weight.zero_point, order)};
  });
  result.effective_bits = tensor.type->bits();
  if (gguf::needs_zero_points(*tensor.type, scheme))
    result.effective_bits +=
        static_cast<double>(scheme.bits * scheme.groups(tensor.shape[1])) / static_cast<double>(tensor.shape[1]);
  return result;
}

/// The scheme of each tensor, where our own files say so; else all nullopt.
std::vector<std::optional<quant::Scheme>> schemes_of(const File& file) {
  std::vector<std::optional<quant::Scheme>> result(file.header.tensors.size());
  const auto* schemes = gguf::array_of<std::string>(file.header, "satin.schemes", file.where);
  const auto* indices = gguf::array_of<int32_t>(file.header, "satin.tensor_schemes", file.where);
  if (!schemes || !indices) return result;
  const auto refuse = [&](const std::string& what) {
    throw UserError(cat(file.where, ": satin.tensor_schemes: ", what));
  };
  if (indices->size() != result.size())
    refuse(cat("expected one for each of ", result.size(), " tensors, found ", indices->size()));
  std::vector<quant::Scheme> parsed;
  for (const std::string& text : *schemes) {
    const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    parsed.push_back(io::scheme_from_json(json, file.where + ": satin.schemes"));
  }
  for (size_t i = 0; i < result.size(); ++i) {
    const int32_t index = (*indices)[i];
    if (index < -1 || index >= static_cast<int32_t>(parsed.size())) refuse(cat("there is no scheme ", index));
    if (index >= 0) result[i] = parsed[index];
  }
  return result;
}

/// 16 bits when every matrix is of the same such type.
std::string foreign_dtype(const gguf::Header& header) {
  std::string dtype;
  for (const TensorEntry& tensor : header.tensors) {
    if (tensor.shape.size() == 1) continue;
    const std::string found = tensor.type->type == Type::kF16    ? "float16"
                              : tensor.type->type == Type::kBF16 ? "bfloat16"
                                                                 : "float32";
    if (!dtype.empty() && found != dtype) return "float32";
    dtype = found;
  }
  return dtype.empty() ? "float32" : dtype;
}

at::Tensor stored_rope_factors(const File& file) {
  for (const TensorEntry& tensor : file.header.tensors)
    if (tensor.name == "rope_freqs.weight" && tensor.shape.size() == 1)
      return dense_values(file, tensor).to(at::kFloat);
  return {};
}

/// Before a decoder of these sizes is built: that the file has them.
void check_shapes(const ShippedModel& model, const std::string& where) {
  const models::ModelConfig& c = model.config;
  const auto check = [&](const std::string& name, int64_t rows, int64_t columns) {
    const ShippedTensor* tensor = model.find(name);
    if (!tensor) throw UserError(cat(where, ": there is no tensor for ", name));
    if (tensor->shape != std::vector<int64_t>{rows, columns})
      throw UserError(
          cat(where, ": ", name, ": expected [", rows, ", ", columns, "], found ", at::IntArrayRef(tensor->shape)));
  };
  check("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {  // ends at the first layer that is not there
    const std::string prefix = cat("model.layers.", layer, ".");
    check(prefix + "self_attn.q_proj.weight", c.num_heads * c.head_dim, c.hidden_size);
    check(prefix + "self_attn.k_proj.weight", c.num_kv_heads * c.head_dim, c.hidden_size);
    check(prefix + "mlp.up_proj.weight", c.intermediate_size, c.hidden_size);
  }
}

nlohmann::json hf_config(const File& file) {
  if (file.header.find("satin.config")) return gguf::required_object(file.header, "satin.config", file.where);
  return gguf::hf_config_of(file.header, foreign_dtype(file.header), stored_rope_factors(file), file.where);
}

}  // namespace

fs::path gguf_file(const fs::path& path) {
  if (!fs::is_directory(path)) return path.extension() == ".gguf" ? path : fs::path();
  if (fs::exists(path / "config.json")) return {};
  fs::path found;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() != ".gguf") continue;
    if (!found.empty())
      throw UserError(cat(path.string(), " holds several GGUF files, ", found.filename().string(), " and ",
                          entry.path().filename().string(), "; give the name of one"));
    found = entry.path();
  }
  return found;
}

ShippedModel open_gguf(const fs::path& path) {
  const Shared file = std::make_shared<const File>(path);
  if (gguf::integer_or(file->header, "split.count", 1, 0, 1 << 20, file->where) > 1)
    throw UserError(cat(file->where,
                        ": one of several files of a model (split.count); join them first, with "
                        "llama-gguf-split --merge"));
  ShippedModel model;
  model.kind = "gguf";
  model.directory = path;
  model.hf_config = hf_config(*file);
  model.config = models::parse_model_config(model.hf_config, file->where);
  const std::string own = gguf::text_or(file->header, "satin.dequant_dtype", "", file->where);
  if (!own.empty()) {
    if (own != "bfloat16" && own != "float16" && own != "float32")
      throw UserError(cat(file->where, ": satin.dequant_dtype is '", own, "', expected bfloat16, float16 or float32"));
    model.config.dtype = own;
    model.hf_config["dtype"] = own;
    model.hf_config.erase("torch_dtype");
  }
  model.dtype = shipped_dtype(model.config);
  const std::string& architecture = gguf::required_text(file->header, "general.architecture", file->where);
  if (architecture != gguf::architecture_of(model.config.model_type))
    throw UserError(cat(file->where, ": general.architecture is '", architecture, "', satin.config describes a ",
                        model.config.model_type));
  const auto schemes = schemes_of(*file);
  for (size_t i = 0; i < schemes.size(); ++i) {
    const TensorEntry& tensor = file->header.tensors[i];
    if (tensor.name == "rope_freqs.weight") continue;  // is in the configuration
    const std::string name = gguf::hf_name(tensor.name);
    if (name.empty())
      throw UserError(cat(file->where, ": tensor ", tensor.name, " is not one of a ", architecture, " model"));
    const at::Tensor order = gguf::row_order(model.config, architecture, name, tensor.shape.front());
    if (schemes[i])
      model.add(quantized_tensor(file, tensor, name, order, *schemes[i]));
    else
      model.add(dense_tensor(file, tensor, name, order, own.empty() ? natural_dtype(*tensor.type) : model.dtype));
  }
  check_shapes(model, file->where);
  return model;
}

tokenizer::Tokenizer open_tokenizer(const fs::path& path) {
  const fs::path file = gguf_file(path);
  if (file.empty()) return tokenizer::Tokenizer::load(path);
  const File opened(file);
  return gguf::tokenizer_of(opened.header, opened.where);
}

void write_model_files(const fs::path& path, const fs::path& directory) {
  const File file(path);
  write_file_atomically(directory / "config.json", hf_config(file).dump(2) + "\n");
  gguf::write_tokenizer_files(file.header, file.where, directory);
}

}  // namespace satin::exporting
