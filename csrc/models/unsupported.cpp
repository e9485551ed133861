#include "models/unsupported.h"

#include "core/error.h"

namespace satin::models {
using nlohmann::json;

namespace {

bool is_number(const json& value, double number) { return value.is_number() && value.get<double>() == number; }
bool is_zero(const json& value) { return is_number(value, 0) || value == json(false); }
bool is_one(const json& value) { return is_number(value, 1); }
bool is_false(const json& value) { return value == json(false); }
bool is_empty(const json& value) { return value.empty() || is_zero(value); }
bool is_silu(const json& value) { return value == json("silu") || value == json("swish"); }
bool at_most_one(const json& value) { return value.is_number() && value.get<double>() <= 1; }

struct Rule {
  const char* key;
  bool (*inactive)(const json&);
  const char* supported;
};

constexpr const char* kDense = "only dense feed-forward layers are supported (no mixture of experts)";
constexpr const char* kNoCap = "logit soft-capping is not supported (null)";
constexpr const char* kNoMultiplier = "such a multiplier is not supported (1 or null)";
constexpr const char* kNoDropout = "dropout is not supported (0)";
constexpr const char* kFullRotary = "only rotation of the whole head is supported (1 or null)";

const Rule kRules[] = {
    {"hidden_act", is_silu, "only the activation \"silu\" (SwiGLU) is supported"},
    {"hidden_activation", is_silu, "only the activation \"silu\" (SwiGLU) is supported"},
    {"pretraining_tp", at_most_one, "only 1 is supported (slice-wise products of tensor-parallel pretraining)"},
    {"num_experts", is_zero, kDense},
    {"num_local_experts", is_zero, kDense},
    {"n_routed_experts", is_zero, kDense},
    {"n_shared_experts", is_zero, kDense},
    {"moe_intermediate_size", is_zero, kDense},
    {"partial_rotary_factor", is_one, kFullRotary},
    {"rotary_pct", is_one, kFullRotary},
    {"rope_interleaved", is_false, "only the half-split rotation is supported (false)"},
    {"no_rope_layers", is_empty, "layers without rotary positions are not supported (null)"},
    {"attn_logit_softcapping", is_zero, kNoCap},
    {"final_logit_softcapping", is_zero, kNoCap},
    {"logits_soft_cap", is_zero, kNoCap},
    {"logit_scale", is_one, kNoMultiplier},
    {"logits_scaling", is_one, kNoMultiplier},
    {"embedding_multiplier", is_one, kNoMultiplier},
    {"residual_multiplier", is_one, kNoMultiplier},
    {"attention_multiplier", is_zero, "attention is scaled by 1 / sqrt(head_dim) (null)"},
    {"query_pre_attn_scalar", is_zero, "attention is scaled by 1 / sqrt(head_dim) (null)"},
    {"attention_dropout", is_zero, kNoDropout},
    {"hidden_dropout", is_zero, kNoDropout},
    {"embd_pdrop", is_zero, kNoDropout},
    {"resid_pdrop", is_zero, kNoDropout},
    {"clip_qkv", is_zero, "clipping of q, k and v is not supported (null)"},
    {"attention_chunk_size", is_zero, "chunked attention is not supported (null)"},
    {"alibi", is_false, "only rotary positions are supported (false)"},
    {"use_qk_norm", is_false, "q and k norms are supported for model_type qwen3 (where they are always on)"},
    {"qk_layernorm", is_false, "q and k norms are supported for model_type qwen3 (where they are always on)"},
    {"parallel_attn", is_false, "only sequential attention and feed-forward layers are supported (false)"},
    {"num_nextn_predict_layers", is_zero, "multi-token prediction layers are not supported (0)"},
    {"vision_config", is_empty, "only text models are supported"},
    {"text_config", is_empty, "only plain text models are supported (no nested text_config)"},
};

bool all_full_attention(const json& layer_types) {
  if (!layer_types.is_array()) return false;
  for (const json& type : layer_types)
    if (type != json("full_attention")) return false;
  return true;
}

}  // namespace

void check_unsupported(const ConfigReader& config) {
  for (const Rule& rule : kRules) {
    const json* value = config.find(rule.key);
    if (value && !rule.inactive(*value)) config.refuse(rule.key, rule.supported);
  }
}

void check_sliding_window(const ConfigReader& config, int64_t default_window, bool off_by_default,
                          int64_t max_position_embeddings, int64_t num_layers) {
  const json* layer_types = config.find("layer_types");
  if (layer_types && !all_full_attention(*layer_types))
    config.refuse("layer_types", "only \"full_attention\" layers are supported");
  if (layer_types) return;
  if (!config.boolean("use_sliding_window").value_or(!off_by_default)) return;
  if (off_by_default && config.integer("max_window_layers", 0).value_or(28) >= num_layers) return;
  const bool absent = !config.find("sliding_window");
  if (absent && (default_window == 0 || config.contains("sliding_window"))) return;
  const int64_t window = config.integer("sliding_window", 1).value_or(default_window);
  if (window >= max_position_embeddings) return;
  config.refuse("sliding_window",
                cat(absent ? cat("means ", default_window, " for this family, and ") : "",
                    "sliding-window attention is not supported: only null, use_sliding_window false, or a window of at "
                    "least max_position_embeddings (",
                    max_position_embeddings, ")"));
}

}  // namespace satin::models
