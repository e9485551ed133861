// A small decoder with every parameter random, for tests that need no checkpoint.
#pragma once
#include <ATen/core/grad_mode.h>

#include "models/decoder.h"

namespace satin::models {

/// Grouped queries, biases, q/k norms, an untied head: everything a family can have.
inline ModelConfig tiny_config() {
  ModelConfig config{};
  config.model_type = "llama";
  config.vocab_size = 31;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.max_position_embeddings = 64;
  config.rms_norm_eps = 1e-5;
  config.qkv_bias = config.output_bias = config.mlp_bias = config.qk_norm = true;
  return config;
}

inline void randomise(Decoder& decoder, double deviation = 0.3) {
  at::manual_seed(3);
  const at::NoGradGuard no_grad;
  for (const nn::Parameter& parameter : decoder.parameters().all())
    at::Tensor(parameter.value).normal_(parameter.role == nn::Role::kNorm ? 1 : 0, deviation);
}

inline at::Tensor random_tokens(int64_t batch, int64_t num_tokens, int64_t vocab_size = 31) {
  return at::randint(vocab_size, {batch, num_tokens}, at::kLong);
}

}  // namespace satin::models
