// Causal grouped-query attention with rotary positions (Ainslie et al. 2023).
// Shapes: B sequences, T new tokens, S all tokens (cached and new), D head_dim.
#pragma once
#include <span>

#include "nn/joined_linear.h"
#include "nn/norm.h"
#include "nn/visibility.h"
#include "ops/cached_attention.h"

namespace satin::nn {

struct AttentionSpec {
  std::string name;  ///< "model.layers.0.self_attn"
  int64_t hidden_size, num_heads, num_kv_heads, head_dim;
  bool qkv_bias = false, output_bias = false;
  bool qk_norm = false;  ///< RMSNorm over head_dim on q and k before the rotation
  double rms_norm_eps = 1e-6;
};

/// Keys and values of one layer, of [B, kv_heads, capacity, D]: the first `length` are valid.
struct LayerCache {
  ops::CacheRows *keys, *values;
  int64_t length;
};

/// What the new tokens of one sequence, or of all alike, read.
struct Reading {
  at::Tensor cos, sin;  ///< [T, D / 2]: tables of their positions
  Visibility visible;
  const LayerCache* cache = nullptr;  ///< new keys and values are appended to it, detached (no gradients)
};

class Attention {
 public:
  Attention(const AttentionSpec& spec, const LinearFactory& factory, ParameterStore& store);
  /// x [B, T, H] in the compute dtype -> the same. `readings`: one for all sequences, or one for each, whose pasts then
  /// differ: projections are of all at once, and each sequence's attention is what it is alone. `stored_as`: keys and
  /// values are rounded to it, one scale a token and head, straight through; a cache holds these integers.
  at::Tensor forward(const at::Tensor& x, std::span<const Reading> readings,
                     std::optional<ops::ActivationFormat> stored_as = std::nullopt) const;

  /// Makes step() possible; the norm is the one before this layer.
  void prepare_to_step(const RmsNorm& norm) {
    qkv_ = std::make_unique<JoinedLinear>(std::vector{q_proj_.get(), k_proj_.get(), v_proj_.get()}, norm);
  }
  /// One new token a sequence: the stream [B, H] with this layer's result, of the norm's, added. Its key and value are
  /// put into the cache (ops/cached_attention.h); nothing depends on the host. dtype: compute.
  Stream step(const Stream& stream, const ops::AttentionCache& cache, std::optional<ops::ActivationFormat> stored_as,
              at::ScalarType dtype) const;

 private:
  struct Heads {
    at::Tensor q, k, v;  ///< [B, T, heads, D]
  };
  /// -> [B, heads, T, D]
  at::Tensor attend(const Heads& heads, const Reading& reading, std::optional<ops::ActivationFormat> stored_as) const;

  AttentionSpec spec_;
  std::unique_ptr<Linear> q_proj_, k_proj_, v_proj_, o_proj_;
  std::unique_ptr<RmsNorm> q_norm_, k_norm_;
  std::unique_ptr<JoinedLinear> qkv_;
};

}  // namespace satin::nn
