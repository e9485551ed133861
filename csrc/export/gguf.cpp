// Writing GGUF; gguf.h has the keys.
#include "export/gguf.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/nearest.h"
#include "export/gguf_grids.h"
#include "export/gguf_keys.h"
#include "export/gguf_tokenizer.h"
#include "export/integer_grid.h"
#include "export/pack.h"
#include "io/scheme_json.h"

namespace satin::exporting {
namespace {

using gguf::BlockType;
using gguf::Type;

constexpr int64_t kSliceBytes = 4 << 20;

const BlockType& dense_type(at::ScalarType dtype) {
  return gguf::block_type(dtype == at::kHalf ? Type::kF16 : dtype == at::kBFloat16 ? Type::kBF16 : Type::kF32);
}
at::ScalarType dtype_of(const BlockType& type) {
  return type.type == Type::kF16 ? at::kHalf : type.type == Type::kBF16 ? at::kBFloat16 : at::kFloat;
}

/// Written under another name of ours, or made anew from the configuration.
bool is_redundant(const ShippedModel& model, const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || (model.config.tied_embeddings && name == "lm_head.weight");
}

/// One tensor of the file: what it is made from, and how.
struct Entry {
  const ShippedTensor* tensor;
  const BlockType* type;
  at::Tensor order;        ///< of its rows, or undefined
  at::Tensor zero_points;  ///< stored beside, or undefined
};

at::Tensor in_order(const at::Tensor& rows, const at::Tensor& order) {
  return order.defined() ? rows.index_select(0, order) : rows;
}

quant::QuantizedWeight in_order(const quant::QuantizedWeight& weight, const at::Tensor& order) {
  return {weight.scheme, in_order(weight.codes, order), in_order(weight.scale, order),
          in_order(weight.zero_point, order)};
}

class GgufFormat : public Format {
 public:
  explicit GgufFormat(const std::string& type) {
    if (type.empty()) return;
    type_ = gguf::find_block_type(type);
    if (type_) return;
    std::vector<std::string> names;
    std::string all;
    for (const BlockType& known : gguf::block_types()) {
      names.emplace_back(known.name);
      all += cat(all.empty() ? "" : ", ", known.name);
    }
    throw UserError(cat("unknown GGUF type '", type, "'", did_you_mean(type, names), " Types: ", all));
  }

  std::string name() const override { return "gguf"; }
  std::string holds() const override {
    return "integer grids of 2 to 8 bits, seq, ternary and binary, in groups of whole blocks (of 32, 64, 128 or 256 "
           "weights, by type), with scales that are float16 values";
  }
  bool one_file() const override { return true; }
  bool stores(const ShippedModel& model, const std::string& name) const override { return !is_redundant(model, name); }

  std::string refusal(const quant::Scheme& scheme, at::ScalarType) const override {
    if (scheme.method == quant::Method::kOneBit)
      return "its layers have a second value vector and a norm, for which the format has no place";
    if (scheme.activations != quant::Activations::kNone)
      return "the format cannot ask for 8-bit activations (clients quantize activations in their own way)";
    return "";
  }

  std::string refusal_of_layers(const std::vector<QuantizedLayer>& layers) const override {
    if (type_ && type_->dense()) return "";
    for (const auto& layer : layers) {
      const gguf::WeightFacts surest = gguf::facts_of_all(layer.scheme, layer.out_features, layer.in_features);
      if (!type_ && gguf::smallest_type(surest)) continue;
      const gguf::WeightFacts luckiest = gguf::facts_of_some(layer.scheme, layer.out_features, layer.in_features);
      if (type_ && gguf::refusal(*type_, luckiest).empty()) continue;
      return refused(layer.name, surest);
    }
    return "";
  }

  std::string refusal_of_values(const quant::QuantizedWeight& weight) const override {
    if (type_ && type_->dense()) return dense_refusal(quant::dequantize(weight), *type_);
    if (const std::string reason = gguf::scales_refusal(weight); !reason.empty()) return reason;
    if (!type_) return "";
    const gguf::WeightFacts facts = gguf::facts_of(weight);
    return gguf::refusal(*type_, facts).empty() ? "" : refused("this weight", facts);
  }

  std::string checked_at_the_end(const quant::Scheme& scheme) const override {
    return type_ && type_->dense() ? "" : scales_checked_at_the_end(scheme);
  }
  std::vector<Client> clients() const override {
    return {{"llama.cpp", "sh", "llama-cli -m DIRECTORY/model.gguf -p \"Once upon a time\" -n 40"}};
  }

  void write(const ShippedModel& model, const fs::path& directory, const WriteOptions& options) const override;

 private:
  std::string refused(const std::string& name, const gguf::WeightFacts& facts) const {
    std::string text = cat(name, " (", quant::describe(facts.scheme), ")");
    if (type_) text += cat(" as ", type_->name, ": ", gguf::refusal(*type_, facts));
    return cat(text, "; ", gguf::alternatives(facts, type_), "; or dense, --gguf-type ",
               dense_type(quant::storage_dtype(facts.scheme.dequant_dtype, at::kFloat)).name);
  }

  /// Empty, or how many of the values are not those of the type.
  static std::string dense_refusal(const at::Tensor& values, const BlockType& type) {
    const at::ScalarType dtype = dtype_of(type);
    if (values.scalar_type() == dtype || dtype == at::kFloat) return "";
    const int64_t count = values.to(dtype).to(at::kFloat).ne(values.to(at::kFloat)).sum().item<int64_t>();
    return count ? cat(count, " of ", values.numel(), " values are not ", type.name, " values; use ",
                       dense_type(values.scalar_type()).name)
                 : "";
  }

  std::vector<Entry> plan(const ShippedModel& model, const Progress& progress) const;
  void plan_values(Entry& entry) const;
  void write_entry(const Entry& entry, const gguf::TensorEntry& place, int64_t data_begin, io::AtomicFile& file) const;

  const BlockType* type_ = nullptr;  ///< nullptr: for each weight the smallest
};

/// What depends on more than names, shapes and schemes: zero points, and types that hold some weights of a scheme.
void GgufFormat::plan_values(Entry& entry) const {
  const quant::QuantizedWeight weight = held_weight(*this, *entry.tensor);
  if (!type_) entry.type = gguf::smallest_type(gguf::facts_of(weight));
  SATIN_CHECK(entry.type, entry.tensor->name, " has no type");
  if (gguf::needs_zero_points(*entry.type, weight.scheme)) entry.zero_points = in_order(weight.zero_point, entry.order);
}

std::vector<Entry> GgufFormat::plan(const ShippedModel& model, const Progress& progress) const {
  const std::string architecture = gguf::architecture_of(model.config.model_type);
  std::vector<Entry> entries;
  std::vector<size_t> by_values;
  std::vector<int64_t> sizes;
  for (const auto& tensor : model.tensors) {
    if (is_redundant(model, tensor.name)) continue;
    const std::string name = gguf::gguf_name(tensor.name);
    if (name.empty()) throw UserError(cat(tensor.name, ": GGUF has no name for this tensor"));
    Entry entry{&tensor, nullptr, gguf::row_order(model.config, architecture, tensor.name, tensor.shape.front()), {}};
    const bool matrix = tensor.shape.size() == 2;
    if (!matrix)
      entry.type = &gguf::block_type(Type::kF32);  // norms and biases
    else if (type_ && type_->dense())
      entry.type = type_;
    else if (!tensor.scheme)
      entry.type = &dense_type(tensor.dtype);
    else
      entry.type =
          type_ ? type_ : gguf::smallest_type(gguf::facts_of_all(*tensor.scheme, tensor.shape[0], tensor.shape[1]));
    if (tensor.scheme && tensor.scheme->has_zero_point() && !entry.type->dense()) {
      by_values.push_back(entries.size());
      sizes.push_back(tensor.num_elements());
    }
    entries.push_back(entry);
  }
  in_parallel(
      sizes, [&](size_t i) { plan_values(entries[by_values[i]]); }, "choosing types", progress);
  return entries;
}

void GgufFormat::write_entry(const Entry& entry, const gguf::TensorEntry& place, int64_t data_begin,
                             io::AtomicFile& file) const {
  const int64_t begin = data_begin + static_cast<int64_t>(place.begin),
                row_bytes = static_cast<int64_t>(place.row_bytes()), num_rows = place.num_rows();
  if (entry.type->dense()) {
    if (entry.tensor->scheme) held_weight(*this, *entry.tensor);  // refuses values that the type does not hold
    at::Tensor values = entry.tensor->values();
    if (const std::string reason = dense_refusal(values, *entry.type); !reason.empty())
      throw UserError(cat("--gguf-type: ", entry.tensor->name, ": ", reason));
    values = in_order(values, entry.order).to(dtype_of(*entry.type)).contiguous();
    file.write_at(begin, {static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
    return;
  }
  const quant::QuantizedWeight weight = in_order(held_weight(*this, *entry.tensor), entry.order);
  const int64_t step = std::max<int64_t>(1, kSliceBytes / row_bytes);
  std::vector<std::byte> bytes;
  for (int64_t first = 0; first < num_rows; first += step) {
    const int64_t last = std::min(num_rows, first + step);
    bytes.resize(static_cast<size_t>((last - first) * row_bytes));
    gguf::write_blocks(*entry.type, weight, first, last, bytes);
    file.write_at(begin + first * row_bytes, bytes);
  }
}

/// The type of most weights that have one.
Type most_common_type(const std::vector<Entry>& entries) {
  std::map<Type, int64_t> counts;
  for (const Entry& entry : entries)
    if (entry.tensor->shape.size() == 2) counts[entry.type->type] += entry.tensor->num_elements();
  Type most = Type::kF32;
  for (const auto& [type, count] : counts)
    if (count > counts[most]) most = type;
  return most;
}

/// What makes reading exact, and the tensors.
void add_entries(const ShippedModel& model, const std::vector<Entry>& entries, gguf::Header& header) {
  const auto add = [&](const std::string& key, gguf::Value value) { header.keys.emplace_back(key, std::move(value)); };
  std::vector<std::string> schemes;
  std::vector<int32_t> scheme_of;
  for (const Entry& entry : entries) {
    const std::string name = gguf::gguf_name(entry.tensor->name);
    header.tensors.push_back({name, entry.tensor->shape, entry.type, 0});
    scheme_of.push_back(-1);
    if (entry.type->dense()) continue;
    const std::string scheme = io::scheme_to_json(*entry.tensor->scheme).dump();
    const auto found = std::find(schemes.begin(), schemes.end(), scheme);
    scheme_of.back() = static_cast<int32_t>(found - schemes.begin());
    if (found == schemes.end()) schemes.push_back(scheme);
    if (!entry.zero_points.defined()) continue;
    const at::Tensor packed =
        pack_bits(entry.zero_points.to(at::kByte).view({1, -1}), entry.tensor->scheme->bits).contiguous();
    const auto* bytes = static_cast<const uint8_t*>(packed.const_data_ptr());
    add("satin.zero_points." + name, std::vector<uint8_t>(bytes, bytes + packed.nbytes()));
  }
  if (const at::Tensor factors = gguf::rope_factors(model.config); factors.defined()) {
    header.tensors.push_back({"rope_freqs.weight", {factors.size(0)}, &gguf::block_type(Type::kF32), 0});
    scheme_of.push_back(-1);
  }
  add("satin.dequant_dtype", model.dtype == at::kHalf    ? std::string("float16")
                             : model.dtype == at::kFloat ? "float32"
                                                         : "bfloat16");
  add("satin.schemes", std::move(schemes));
  add("satin.tensor_schemes", std::move(scheme_of));
}

void GgufFormat::write(const ShippedModel& model, const fs::path& directory, const WriteOptions& options) const {
  if (const std::string reason = gguf::architecture_refusal(model.config); !reason.empty())
    throw UserError(cat("format gguf: ", reason));
  const bool quantized =
      std::ranges::any_of(model.tensors, [](const auto& tensor) { return tensor.scheme.has_value(); });
  if (type_ && !type_->dense() && !quantized)
    throw UserError(cat("--gguf-type ", type_->name,
                        ": the model has no quantized layer; leave it out, or train or "
                        "quantize the model first"));
  const std::vector<Entry> entries = plan(model, options.progress);
  gguf::Header header;
  const std::string model_name = model.directory.stem().string();
  gguf::add_architecture(model.config, model_name, most_common_type(entries), header);
  if (const fs::path source = gguf_file(model.directory); !source.empty()) {
    const MappedFile mapped(source);
    gguf::copy_tokenizer(gguf::parse_header(mapped.bytes(), source.string()), header);
  } else if (fs::exists(model.directory / "tokenizer.json")) {
    gguf::add_tokenizer(model.directory, model.config, header);
  } else {
    log_warning(cat("there is no tokenizer.json in ", model.directory.string(),
                    ": the GGUF file has no tokenizer, and clients cannot read text with it"));
  }
  nlohmann::json config = model.hf_config;
  config.erase("quantization_config");
  header.keys.emplace_back("satin.config", config.dump());
  add_entries(model, entries, header);

  const std::string head = gguf::format_header(header);
  io::AtomicFile file(directory / "model.gguf");
  const auto data_begin = static_cast<int64_t>(head.size());
  const gguf::TensorEntry& last = header.tensors.back();
  const auto end = data_begin + static_cast<int64_t>(gguf::padded(last.begin + last.bytes()));
  file.reserve(end);
  file.write_at(0, std::as_bytes(std::span(head)));
  std::vector<int64_t> sizes;
  for (const Entry& entry : entries) sizes.push_back(entry.tensor->num_elements());
  in_parallel(
      sizes,
      [&](size_t i) {
        const gguf::TensorEntry& place = header.tensors[i];
        write_entry(entries[i], place, data_begin, file);
        const size_t written = place.begin + place.bytes(), padding = gguf::padded(written) - written;
        const std::vector<std::byte> zeros(padding);
        if (padding) file.write_at(data_begin + static_cast<int64_t>(written), zeros);
      },
      "packing", options.progress);
  if (entries.size() < header.tensors.size()) {
    const at::Tensor factors = gguf::rope_factors(model.config).contiguous();
    std::vector<std::byte> bytes(gguf::padded(factors.nbytes()));
    std::copy_n(static_cast<const std::byte*>(factors.const_data_ptr()), factors.nbytes(), bytes.data());
    file.write_at(data_begin + static_cast<int64_t>(last.begin), bytes);
  }
  file.commit();
}

}  // namespace

std::unique_ptr<Format> make_gguf_format(const std::string& type) { return std::make_unique<GgufFormat>(type); }

}  // namespace satin::exporting
