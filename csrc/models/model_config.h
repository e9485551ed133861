// A decoder's architecture: data read from a Hugging Face config.json. A family is a set of flags, not a subclass.
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "nn/rope.h"

namespace satin::models {

using Rope = nn::Rope;

struct ModelConfig {
  std::string model_type;  ///< llama | mistral | qwen2 | qwen3 (SmolLM2 is llama)
  int64_t vocab_size, hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim;
  int64_t max_position_embeddings;
  double rms_norm_eps;
  double initializer_range = 0.02;
  Rope rope;
  bool tied_embeddings = false;
  bool qkv_bias = false;     ///< Qwen2 (and llama with attention_bias)
  bool output_bias = false;  ///< o_proj bias: llama with attention_bias
  bool mlp_bias = false;
  bool qk_norm = false;            ///< Qwen3: RMSNorm over head_dim on q and k before the rotation
  std::string dtype = "bfloat16";  ///< of the checkpoint
  int64_t bos_token_id = -1, eos_token_id = -1, pad_token_id = -1;  ///< -1: none
  std::vector<int64_t> eos_token_ids;  ///< all of them (config.json may hold a list); eos_token_id is the first
};

/// Reads and checks config.json's content, in the spelling of transformers 4 (rope_theta, rope_scaling) or 5
/// (rope_parameters); absent keys have transformers' defaults. Anything that is not supported (another family, an
/// active sliding window, another activation or rope type, experts, soft-capping, ...) is refused by name: UserError
/// with the key, its value and what is supported. `where` names the file in errors.
ModelConfig parse_model_config(const nlohmann::json& config, const std::string& where);
ModelConfig load_model_config(const std::filesystem::path& directory);

}  // namespace satin::models
