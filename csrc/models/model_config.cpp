#include "models/model_config.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "models/unsupported.h"

namespace satin::models {
using nlohmann::json;

namespace {

enum class Bias { kNever, kAlways, kAsConfigured };

/// What distinguishes the families: which flags exist, and transformers' defaults of absent keys.
struct Family {
  const char* model_type;
  Bias qkv_bias, output_bias, mlp_bias;
  bool qk_norm;
  int64_t num_kv_heads;  ///< 0: as many as heads
  int64_t head_dim;      ///< 0: hidden_size / num_attention_heads
  int64_t max_position_embeddings;
  int64_t sliding_window;   ///< 0: none
  bool sliding_window_off;  ///< unless use_sliding_window is true
};

using enum Bias;
const Family kFamilies[] = {
    {"llama", kAsConfigured, kAsConfigured, kAsConfigured, false, 0, 0, 2048, 0, false},
    {"mistral", kNever, kNever, kNever, false, 8, 0, 131072, 4096, false},
    {"qwen2", kAlways, kNever, kNever, false, 32, 0, 32768, 4096, true},
    {"qwen3", kAsConfigured, kAsConfigured, kNever, true, 32, 128, 32768, 4096, true},
};

const Family& find_family(const ConfigReader& config) {
  const auto type = config.text("model_type");
  std::string known;
  for (const Family& family : kFamilies) {
    if (type == family.model_type) return family;
    known += cat(known.empty() ? "" : ", ", family.model_type);
  }
  config.refuse("model_type", cat("supported are ", known, " (Llama 2 and 3 and SmolLM2 are llama)"));
}

bool bias(const ConfigReader& config, const Family& family, const char* key, Bias rule) {
  const auto value = config.boolean(key);
  if (rule == kAsConfigured) return value.value_or(false);
  if (value && *value != (rule == kAlways))
    config.refuse(
        key, cat("model_type ", family.model_type, rule == kAlways ? " always has" : " never has", " these biases"));
  return rule == kAlways;
}

const json* rope_object(const ConfigReader& config, std::string& key) {
  for (const char* spelling : {"rope_scaling", "rope_parameters"}) {
    const json* found = config.find(spelling);
    if (!found || found->empty()) continue;
    key = spelling;
    return found;
  }
  return nullptr;
}

Rope parse_rope(const ConfigReader& config, int64_t max_position_embeddings) {
  Rope rope;
  rope.theta = config.positive("rope_theta").value_or(10000);
  std::string key;
  const json* object = rope_object(config, key);
  if (!object) return rope;

  const ConfigReader reader(*object, cat(config.where(), ": ", key));
  static const char* const kKnown[] = {
      "type",   "rope_type",       "rope_theta",       "partial_rotary_factor",
      "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"};
  for (const auto& [name, value] : object->items())
    if (std::none_of(std::begin(kKnown), std::end(kKnown), [&](const char* known) { return name == known; }))
      reader.refuse(name, "this key is not supported");
  check_unsupported(reader);  // partial_rotary_factor

  rope.theta = reader.positive("rope_theta").value_or(rope.theta);
  const char* type_key = reader.find("rope_type") ? "rope_type" : "type";
  rope.type = reader.text(type_key).value_or("default");
  const auto required = [&](const char* name) {
    const auto value = reader.positive(name);
    if (!value) throw UserError(cat(reader.where(), ": ", name, " is missing (rope type ", rope.type, " needs it)"));
    return *value;
  };
  if (rope.type == "default") {
    if (reader.positive("factor").value_or(1) != 1) reader.refuse("factor", "rope type default has no scaling");
  } else if (rope.type == "linear") {
    rope.factor = required("factor");
  } else if (rope.type == "llama3") {
    rope.factor = required("factor");
    rope.low_freq_factor = required("low_freq_factor");
    rope.high_freq_factor = required("high_freq_factor");
    if (rope.high_freq_factor <= rope.low_freq_factor)
      reader.refuse("high_freq_factor", "it must exceed low_freq_factor");
    const auto outer = config.integer("original_max_position_embeddings", 1);
    const auto inner = reader.integer("original_max_position_embeddings", 1);
    rope.original_max_position_embeddings = outer ? *outer : inner.value_or(max_position_embeddings);
  } else {
    reader.refuse(type_key, "supported are default, linear and llama3");
  }
  return rope;
}

std::string parse_dtype(const ConfigReader& config) {
  const char* key = config.find("dtype") ? "dtype" : "torch_dtype";
  std::string dtype = config.text(key).value_or("float32");
  if (dtype.starts_with("torch.")) dtype = dtype.substr(6);
  if (dtype != "float32" && dtype != "bfloat16" && dtype != "float16")
    config.refuse(key, "supported are float32, bfloat16 and float16");
  return dtype;
}

}  // namespace

ModelConfig parse_model_config(const json& object, const std::string& where) {
  const ConfigReader config(object, where);
  const Family& family = find_family(config);
  check_unsupported(config);

  ModelConfig m{};
  m.model_type = family.model_type;
  m.vocab_size = config.required_integer("vocab_size", 1);
  m.hidden_size = config.required_integer("hidden_size", 1);
  m.intermediate_size = config.required_integer("intermediate_size", 1);
  m.num_layers = config.required_integer("num_hidden_layers", 1);
  m.num_heads = config.required_integer("num_attention_heads", 1);
  const int64_t default_kv =
      config.contains("num_key_value_heads") || !family.num_kv_heads ? m.num_heads : family.num_kv_heads;
  m.num_kv_heads = config.integer("num_key_value_heads", 1).value_or(default_kv);
  if (m.num_heads % m.num_kv_heads != 0)
    config.refuse("num_key_value_heads", cat("it must divide num_attention_heads (", m.num_heads, ")"));
  const auto head_dim = config.integer("head_dim", 1);
  if (!head_dim && !family.head_dim && m.hidden_size % m.num_heads != 0)
    config.refuse("num_attention_heads",
                  cat("it must divide hidden_size (", m.hidden_size, ") when head_dim is not given"));
  m.head_dim = head_dim.value_or(family.head_dim ? family.head_dim : m.hidden_size / m.num_heads);
  if (m.head_dim % 2 != 0)
    throw UserError(cat(where, ": head_dim is ", m.head_dim, ", but the rotation needs an even number"));

  m.max_position_embeddings = config.integer("max_position_embeddings", 1).value_or(family.max_position_embeddings);
  check_sliding_window(config, family.sliding_window, family.sliding_window_off, m.max_position_embeddings,
                       m.num_layers);
  m.rms_norm_eps = config.positive("rms_norm_eps").value_or(1e-6);
  m.initializer_range = config.positive("initializer_range").value_or(0.02);
  m.rope = parse_rope(config, m.max_position_embeddings);
  m.tied_embeddings = config.boolean("tie_word_embeddings").value_or(false);
  m.qkv_bias = bias(config, family, "attention_bias", family.qkv_bias);
  m.output_bias = family.output_bias == kAsConfigured && m.qkv_bias;  // one key for all four projections
  m.mlp_bias = bias(config, family, "mlp_bias", family.mlp_bias);
  m.qk_norm = family.qk_norm;
  m.dtype = parse_dtype(config);
  const auto first = [&](const char* key) {
    const auto ids = config.integers(key, -1);
    return ids.empty() ? -1 : ids.front();
  };
  m.bos_token_id = first("bos_token_id");
  m.eos_token_id = first("eos_token_id");
  m.pad_token_id = first("pad_token_id");
  for (const int64_t id : config.integers("eos_token_id", -1))
    if (id >= 0) m.eos_token_ids.push_back(id);
  return m;
}

ModelConfig load_model_config(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const json object = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) throw UserError(cat(path.string(), " is not valid JSON"));
  return parse_model_config(object, path.string());
}

}  // namespace satin::models
