#include "export/gguf_keys.h"

#include <ATen/ATen.h>

#include <charconv>
#include <limits>

#include "core/error.h"
#include "nn/rope.h"

namespace satin::exporting::gguf {
namespace {

using nlohmann::json;

constexpr int64_t kMaxInteger = std::numeric_limits<int32_t>::max();

constexpr std::pair<const char*, const char*> kOutside[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
constexpr std::pair<const char*, const char*> kInLayers[] = {
    {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"}};
constexpr std::pair<const char*, const char*> kArchitectures[] = {
    {"llama", "llama"}, {"mistral", "llama"}, {"qwen2", "qwen2"}, {"qwen3", "qwen3"}};

/// The names with `from` and `to` of every pair swapped by `reverse`.
std::string renamed(const std::string& name, const std::string& layers_from, const std::string& layers_to,
                    bool reverse) {
  const size_t dot = name.rfind('.');
  const std::string last = dot == name.npos ? "" : name.substr(dot);
  if (last != ".weight" && last != ".bias") return "";
  const std::string module = name.substr(0, dot);
  for (const auto& [hf, gguf] : kOutside)
    if (module == (reverse ? gguf : hf)) return (reverse ? hf : gguf) + last;
  if (!module.starts_with(layers_from)) return "";
  const size_t begin = layers_from.size(), end = module.find('.', begin);
  const std::string layer = module.substr(begin, end - begin);
  if (end == module.npos || layer.empty() || layer.find_first_not_of("0123456789") != layer.npos) return "";
  for (const auto& [hf, gguf] : kInLayers)
    if (module.substr(end + 1) == (reverse ? gguf : hf)) return layers_to + layer + "." + (reverse ? hf : gguf) + last;
  return "";
}

uint32_t file_type_number(Type type) {
  constexpr std::pair<Type, uint32_t> kNumbers[] = {
      {Type::kF32, 0},   {Type::kF16, 1},    {Type::kQ4_0, 2},   {Type::kQ4_1, 3},
      {Type::kQ8_0, 7},  {Type::kQ5_0, 8},   {Type::kQ5_1, 9},   {Type::kQ2_K, 10},
      {Type::kQ3_K, 11}, {Type::kQ4_K, 14},  {Type::kQ5_K, 16},  {Type::kQ6_K, 18},
      {Type::kBF16, 32}, {Type::kTQ1_0, 36}, {Type::kTQ2_0, 37}, {Type::kQ1_0, 40}};
  for (const auto& [known, number] : kNumbers)
    if (known == type) return number;
  return 1024;  // "guessed": the number of a type of its own has no meaning to clients
}

/// 1e-05 of the float that is nearest to it, not 9.99999974e-06.
double shortest(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, static_cast<float>(value));
  double shortened = value;
  if (error == std::errc()) std::from_chars(text, end, shortened);
  return shortened;
}

bool has_tensor(const Header& header, const std::string& name) {
  for (const TensorEntry& tensor : header.tensors)
    if (tensor.name == name) return true;
  return false;
}

}  // namespace

std::string gguf_name(const std::string& name) { return renamed(name, "model.layers.", "blk.", false); }
std::string hf_name(const std::string& name) { return renamed(name, "blk.", "model.layers.", true); }

json required_object(const Header& header, const std::string& key, const std::string& where) {
  constexpr int kMaxDepth = 100;
  const auto watch = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMaxDepth) throw UserError(cat(where, ": key ", key, ": nested more than ", kMaxDepth, " deep"));
    return true;
  };
  json object;
  try {
    object = json::parse(required_text(header, key, where), watch);
  } catch (const json::exception& error) {
    throw UserError(cat(where, ": key ", key, ": not valid JSON: ", error.what()));
  }
  if (!object.is_object()) throw UserError(cat(where, ": key ", key, ": expected a JSON object"));
  return object;
}

std::string architecture_of(const std::string& model_type) {
  for (const auto& [hf, gguf] : kArchitectures)
    if (model_type == hf) return gguf;
  throw UserError(cat("model_type ", model_type, " has no GGUF architecture"));
}

std::string architecture_refusal(const models::ModelConfig& config) {
  if (config.model_type == "qwen3" && config.qkv_bias) return "llama.cpp's qwen3 has no biases in its attention";
  return "";
}

void add_architecture(const models::ModelConfig& config, const std::string& name, Type file_type, Header& header) {
  const std::string architecture = architecture_of(config.model_type);
  const auto add = [&](const std::string& key, Value value) { header.keys.emplace_back(key, std::move(value)); };
  const auto size = [&](const std::string& key, int64_t value) {
    add(architecture + "." + key, static_cast<uint32_t>(value));
  };
  add("general.architecture", architecture);
  add("general.type", std::string("model"));
  add("general.name", name);
  add("general.alignment", static_cast<uint32_t>(kAlignment));
  add("general.file_type", file_type_number(file_type));
  add("general.quantization_version", uint32_t{2});
  size("vocab_size", config.vocab_size);
  size("context_length", config.max_position_embeddings);
  size("embedding_length", config.hidden_size);
  size("block_count", config.num_layers);
  size("feed_forward_length", config.intermediate_size);
  size("attention.head_count", config.num_heads);
  size("attention.head_count_kv", config.num_kv_heads);
  size("attention.key_length", config.head_dim);
  size("attention.value_length", config.head_dim);
  size("rope.dimension_count", config.head_dim);
  add(architecture + ".attention.layer_norm_rms_epsilon", static_cast<float>(config.rms_norm_eps));
  add(architecture + ".rope.freq_base", static_cast<float>(config.rope.theta));
  if (config.rope.type == "linear") {
    add(architecture + ".rope.scaling.type", std::string("linear"));
    add(architecture + ".rope.scaling.factor", static_cast<float>(config.rope.factor));
  }
}

at::Tensor rope_factors(const models::ModelConfig& config) {
  if (config.rope.type != "llama3") return {};
  nn::Rope plain = config.rope;
  plain.type = "default";
  const at::Tensor full = nn::inverse_frequencies(plain, config.head_dim),
                   scaled = nn::inverse_frequencies(config.rope, config.head_dim);
  return full / scaled;
}

at::Tensor row_order(const models::ModelConfig& config, const std::string& architecture, const std::string& hf_name,
                     int64_t num_rows) {
  const bool query = hf_name.find(".self_attn.q_proj.") != hf_name.npos;
  const bool key = hf_name.find(".self_attn.k_proj.") != hf_name.npos;
  if (architecture != "llama" || (!query && !key)) return {};
  const int64_t heads = query ? config.num_heads : config.num_kv_heads;
  if (heads * config.head_dim != num_rows)
    throw UserError(cat(hf_name, ": expected ", heads * config.head_dim, " rows, found ", num_rows));
  return at::arange(num_rows, at::kLong).view({heads, 2, config.head_dim / 2}).transpose(1, 2).reshape({-1});
}

namespace {

/// Parameters of llama3 scaling that make these factors: those of the released models, with the factor as found.
json llama3_scaling(models::ModelConfig config, const at::Tensor& factors, const std::string& where) {
  config.rope.type = "llama3";
  config.rope.factor = shortest(factors.max().item<double>());
  config.rope.low_freq_factor = 1;
  config.rope.high_freq_factor = 4;
  config.rope.original_max_position_embeddings = 8192;
  const at::Tensor expected = rope_factors(config);
  if (factors.sizes() != expected.sizes() || !factors.allclose(expected, 1e-4, 0))
    throw UserError(cat(where,
                        ": rope_freqs.weight: only the factors of Llama 3's scaling (low 1, high 4, of 8192 "
                        "positions) are supported"));
  return {{"rope_type", "llama3"},
          {"factor", config.rope.factor},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 8192}};
}

}  // namespace

json hf_config_of(const Header& header, const std::string& dtype, const at::Tensor& factors, const std::string& where) {
  const std::string& architecture = required_text(header, "general.architecture", where);
  std::string known;
  for (const char* name : {"llama", "qwen2", "qwen3"}) known += cat(known.empty() ? "" : ", ", name);
  if (architecture != "llama" && architecture != "qwen2" && architecture != "qwen3")
    throw UserError(cat(where, ": general.architecture is '", architecture, "', supported are ", known));
  const std::string prefix = architecture + ".";
  const auto size = [&](const std::string& key) {
    return required_integer(header, prefix + key, 1, kMaxInteger, where);
  };
  const auto size_or = [&](const std::string& key, int64_t fallback) {
    return integer_or(header, prefix + key, fallback, 0, kMaxInteger, where);
  };
  const auto refuse = [&](const std::string& key, const std::string& reason) {
    throw UserError(cat(where, ": key ", prefix, key, ": ", reason));
  };
  const int64_t hidden = size("embedding_length"), heads = size("attention.head_count"),
                context = size("context_length");
  const int64_t head_dim = size_or("attention.key_length", hidden / heads);
  if (size_or("attention.value_length", head_dim) != head_dim)
    refuse("attention.value_length", cat("expected ", head_dim, ", as long as the keys"));
  if (size_or("rope.dimension_count", head_dim) != head_dim)
    refuse("rope.dimension_count", cat("expected ", head_dim, ": only rotation of the whole head is supported"));
  if (size_or("expert_count", 0)) refuse("expert_count", "mixtures of experts are not supported");
  if (const int64_t window = size_or("attention.sliding_window", 0); window && window < context)
    refuse("attention.sliding_window", "sliding-window attention is not supported");
  for (const char* key : {"attention.scale", "logit_scale", "embedding_scale", "residual_scale"})
    if (header.find(prefix + key)) refuse(key, "it is not supported");

  int64_t vocabulary = 0;
  for (const TensorEntry& tensor : header.tensors)
    if (tensor.name == "token_embd.weight") vocabulary = tensor.num_rows();
  if (!vocabulary) throw UserError(where + ": there is no tensor token_embd.weight");

  json config = {
      {"model_type", architecture},
      {"architectures",
       {architecture == "llama"   ? "LlamaForCausalLM"
        : architecture == "qwen2" ? "Qwen2ForCausalLM"
                                  : "Qwen3ForCausalLM"}},
      {"vocab_size", vocabulary},
      {"hidden_size", hidden},
      {"intermediate_size", size("feed_forward_length")},
      {"num_hidden_layers", size("block_count")},
      {"num_attention_heads", heads},
      {"num_key_value_heads", size_or("attention.head_count_kv", heads)},
      {"head_dim", head_dim},
      {"hidden_act", "silu"},
      {"max_position_embeddings", context},
      {"rms_norm_eps", shortest(required_number(header, prefix + "attention.layer_norm_rms_epsilon", where))},
      {"rope_theta", header.find(prefix + "rope.freq_base")
                         ? shortest(required_number(header, prefix + "rope.freq_base", where))
                         : 10000.0},
      {"tie_word_embeddings", !has_tensor(header, "output.weight")},
      {"dtype", dtype}};
  if (architecture != "qwen2") config["attention_bias"] = has_tensor(header, "blk.0.attn_q.bias");
  if (architecture == "llama") config["mlp_bias"] = has_tensor(header, "blk.0.ffn_up.bias");
  const std::string scaling = text_or(header, prefix + "rope.scaling.type", "none", where);
  if (scaling == "linear") {
    config["rope_scaling"] = {{"rope_type", "linear"},
                              {"factor", required_number(header, prefix + "rope.scaling.factor", where)}};
  } else if (scaling != "none") {
    refuse("rope.scaling.type", cat("'", scaling, "', supported are none and linear, and Llama 3's factors"));
  } else if (factors.defined()) {
    models::ModelConfig partial{};
    partial.head_dim = head_dim;
    partial.rope.theta = config["rope_theta"];
    config["rope_scaling"] = llama3_scaling(partial, factors, where);
  }
  for (const auto& [key, id] :
       {std::pair{"bos_token_id", "bos"}, std::pair{"eos_token_id", "eos"}, std::pair{"pad_token_id", "padding"}}) {
    const int64_t found = integer_or(header, cat("tokenizer.ggml.", id, "_token_id"), -1, 0, kMaxInteger, where);
    if (found >= 0) config[key] = found;
  }
  return config;
}

}  // namespace satin::exporting::gguf
