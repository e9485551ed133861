// Attention of one new token a sequence over its cache. For inference: no gradients, and not in the dispatcher.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/cache_rows.h"

namespace satin::ops {

/// B sequences, S places of a cache.
struct AttentionCache {
  CacheRows keys, values;  ///< of [B, kv_heads, S, D]; written at each sequence's position
  at::Tensor positions;    ///< [B] int64 on the device: where each new token stands, below S
  at::Tensor cos, sin;     ///< [at least S, D / 2] float
};

/// Whether cached_attention serves them: any on the CPU in float or double; sm_90, bfloat16 or half and D of 32, 64,
/// 128 or 256 on CUDA.
bool serves_cached_attention(at::Device device, at::ScalarType dtype, int64_t head_dim);

/// q [B, H, D], k, v [B, kv_heads, D] before the rotation, rows of D contiguous -> [B, H D]. Rotates q and k, puts k
/// and v into the cache, which holds what `stored_as` says, and attends. Source: kernels/cached_attention.h.
at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionCache& cache,
                            std::optional<ActivationFormat> stored_as = std::nullopt);

}  // namespace satin::ops
