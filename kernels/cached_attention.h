// Attention of one new token a sequence over its cache of keys and values, with the rotation of query and key and the
// cache's next entry: what a decoding step does between its projections, in one launch.
//
// Shapes   B sequences, H heads, Hkv key-value heads (H a multiple), D features, S places in the cache. q [B, H, D],
//          k and v [B, Hkv, D], rows of their own strides; y [B, H, D]; keys and values [B, Hkv, S, D] and of integers
//          scales [B, Hkv, S]; cos and sin [at least S, D / 2]; positions [B], 0 ... S - 1.
// Dtypes   CPU: T (float or double) for all. CUDA: bfloat16 or half; cos and sin float. A cache of integers has bytes:
//          int8, or two features of int4 in each, the even one in the low half (two's complement); scales float (T).
// Contract (fp32 arithmetic, fp64 for double), p = positions[b]
//   q and k are rotated by row p of cos and sin (rope.h) and rounded to their dtype; k and v are put at place p of the
//   cache, as integers and a scale a head where `stored_as` says so (act_quant.h);
//   y = softmax(q k^T / sqrt(D)) v over places 0 ... p, query head h with key-value head h / (H / Hkv), where a key or
//   value of integers is the number scale * level, rounded to the dtype: what act_quant.h makes of it.
//   y has the bits that it has with those numbers in a cache of numbers.
//   CUDA: weights of the softmax are rounded to the dtype before they meet the values, and their sum is of the rounded
//   ones: by 2^-9 of a weight at most in bfloat16, 2^-12 in half. The order of sums depends on p, S, and how many
//   sequences and heads there are: the same bits every time, but not in every batch.
// Source   Vaswani et al. 2017 eq. 1; Ainslie et al. 2023 (groups); Dao et al. 2023 (Flash-Decoding): split over keys.
// Errors   std::invalid_argument for sizes, std::runtime_error for CUDA.
#pragma once
#include <optional>

#include "kernels/act_quant.h"
#include "kernels/packed_matmul.h"

namespace satin::kernels {

struct CachedAttention {
  int64_t sequences, heads, kv_heads, features, places;
  std::optional<ActivationFormat> stored_as;  ///< kInt8, kInt4, or the numbers themselves
  const void *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;  ///< elements from one sequence's to the next
  const void *cos, *sin;
  const int64_t* positions;
  void *keys, *values, *key_scales, *value_scales;  ///< scales: null without stored_as
  void* y;
};

/// Features of a head that the CUDA kernel takes: 32, 64, 128, 256.
bool cached_attention_takes(int64_t features);
/// Throws std::invalid_argument.
void check(const CachedAttention& call);

/// CPU, one thread: sequences [begin, end). T: float, double.
template <class T>
void cached_attention_cpu(const CachedAttention& call, int64_t begin, int64_t end);

/// Needs sm_90; all but positions, scales, cos and sin begin at multiples of 16 bytes, and so do rows of q, k and v.
/// Asynchronous on `stream`; begins before the kernel before it has ended (as packed_decode_cuda does): positions, the
/// rows of cos and sin, and the cache below positions must have been written before that one.
void cached_attention_cuda(const CachedAttention& call, Half dtype, CUstream_st* stream);

}  // namespace satin::kernels
