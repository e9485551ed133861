#include "nn/attention.h"

#include <ATen/SDPBackend.h>

#include "core/error.h"
#include "ops/layers.h"

namespace satin::nn {
namespace {

/// Appends [B, kv, T, ...] and returns the valid part. Capacity doubles, so that a token costs amortised constant
/// copies.
at::Tensor append(at::Tensor& buffer, const at::Tensor& fresh, int64_t length) {
  const int64_t total = length + fresh.size(2);
  if (!buffer.defined() || buffer.size(2) < total) {
    auto shape = fresh.sizes().vec();
    shape[2] = length == 0 ? total : std::max(total, 2 * buffer.size(2));
    at::Tensor grown = at::empty(shape, fresh.options());
    if (length > 0) grown.narrow(2, 0, length).copy_(buffer.narrow(2, 0, length));
    buffer = grown;
  }
  buffer.narrow(2, length, fresh.size(2)).copy_(fresh);
  return buffer.narrow(2, 0, total);
}

ops::CacheRows append(ops::CacheRows& buffer, const ops::CacheRows& fresh, int64_t length) {
  SATIN_CHECK(length == 0 ||
                  (buffer.rows.scalar_type() == fresh.rows.scalar_type() && buffer.rows.size(3) == fresh.rows.size(3)),
              "a cache of ", buffer.rows.sizes(), " ", buffer.rows.scalar_type(), " goes on with rows of ",
              fresh.rows.sizes(), " ", fresh.rows.scalar_type(), ": keys and values were stored as another format");
  const at::Tensor rows = append(buffer.rows, fresh.rows, length);
  return {rows, fresh.scales.defined() ? append(buffer.scales, fresh.scales, length) : at::Tensor()};
}

/// [B, kv, S, D] -> [B, heads, S, D], each repeated for the queries of its group.
at::Tensor repeat_heads(const at::Tensor& x, int64_t num_heads) {
  const int64_t groups = num_heads / x.size(1);
  return x.unsqueeze(2).expand({-1, -1, groups, -1, -1}).reshape({x.size(0), num_heads, x.size(2), x.size(3)});
}

/// Whether a fused kernel reads k and v [B, kv, S, D] as they are: cuDNN's, and flash attention's without a mask; none
/// in fp32. The maths path would store [B, heads, T, S].
bool kernel_takes_groups(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const std::optional<at::Tensor>& mask, bool causal) {
  return at::_fused_sdp_choice(q, k, v, mask, /*dropout_p=*/0, causal, /*scale=*/std::nullopt, /*enable_gqa=*/true) !=
         static_cast<int64_t>(at::SDPBackend::math);
}

/// q [B, heads, T, D], k and v [B, kv, T, D] -> [B, heads, T, D].
at::Tensor attend_within(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  SATIN_CHECK_EQ(q.size(0) * q.size(2), documents.num_tokens, "tokens of documents");
  const auto tokens = [](const at::Tensor& x) { return x.transpose(1, 2).reshape({-1, x.size(1), x.size(3)}); };
  const auto outcome = at::_flash_attention_forward(tokens(q), tokens(k), tokens(v), documents.starts, documents.starts,
                                                    documents.longest, documents.longest,
                                                    /*dropout_p=*/0, /*is_causal=*/true, /*return_debug_mask=*/false);
  return std::get<0>(outcome).view({q.size(0), q.size(2), q.size(1), q.size(3)}).transpose(1, 2);
}

}  // namespace

Attention::Attention(const AttentionSpec& spec, const LinearFactory& factory, ParameterStore& store) : spec_(spec) {
  SATIN_CHECK(spec.num_kv_heads > 0 && spec.num_heads % spec.num_kv_heads == 0, spec.num_heads, " heads, ",
              spec.num_kv_heads, " key-value heads");
  const int64_t q_features = spec.num_heads * spec.head_dim, kv_features = spec.num_kv_heads * spec.head_dim;
  q_proj_ = factory({spec.name + ".q_proj", spec.hidden_size, q_features, spec.qkv_bias}, store);
  k_proj_ = factory({spec.name + ".k_proj", spec.hidden_size, kv_features, spec.qkv_bias}, store);
  v_proj_ = factory({spec.name + ".v_proj", spec.hidden_size, kv_features, spec.qkv_bias}, store);
  o_proj_ = factory({spec.name + ".o_proj", q_features, spec.hidden_size, spec.output_bias}, store);
  if (spec.qk_norm) {
    q_norm_ = std::make_unique<RmsNorm>(spec.name + ".q_norm", spec.head_dim, spec.rms_norm_eps, store);
    k_norm_ = std::make_unique<RmsNorm>(spec.name + ".k_norm", spec.head_dim, spec.rms_norm_eps, store);
  }
}

at::Tensor Attention::forward(const at::Tensor& x, std::span<const Reading> readings,
                              std::optional<ops::ActivationFormat> stored_as) const {
  const int64_t batch = x.size(0), num_tokens = x.size(1);
  SATIN_CHECK(readings.size() == 1 || static_cast<int64_t>(readings.size()) == batch, readings.size(), " readings of ",
              batch, " sequences");
  const auto split = [&](const at::Tensor& features) { return features.view({batch, num_tokens, -1, spec_.head_dim}); };
  Heads heads{split(q_proj_->forward(x)), split(k_proj_->forward(x)), split(v_proj_->forward(x))};
  if (q_norm_) {
    heads.q = q_norm_->forward(heads.q);
    heads.k = k_norm_->forward(heads.k);
  }
  at::Tensor y;
  if (readings.size() == 1) {
    y = attend(heads, readings[0], stored_as);
  } else {
    std::vector<at::Tensor> each;
    for (int64_t i = 0; i < batch; ++i)
      each.push_back(attend({heads.q.narrow(0, i, 1), heads.k.narrow(0, i, 1), heads.v.narrow(0, i, 1)},
                            readings[static_cast<size_t>(i)], stored_as));
    y = at::cat(each);
  }
  return o_proj_->forward(y.transpose(1, 2).reshape({batch, num_tokens, -1}));
}

Stream Attention::step(const Stream& stream, const ops::AttentionCache& cache,
                       std::optional<ops::ActivationFormat> stored_as, at::ScalarType dtype) const {
  const JoinedLinear::Result result = qkv_->forward(stream, dtype);
  const auto heads = [&](size_t part) {
    return result.parts[part].unflatten(-1, {result.parts[part].size(-1) / spec_.head_dim, spec_.head_dim});
  };
  at::Tensor q = heads(0), k = heads(1);
  if (q_norm_) {
    q = q_norm_->forward(q);
    k = k_norm_->forward(k);
  }
  return added(*o_proj_, result.stream, ops::cached_attention(q, k, heads(2), cache, stored_as));
}

at::Tensor Attention::attend(const Heads& heads, const Reading& reading,
                             std::optional<ops::ActivationFormat> stored_as) const {
  const at::Tensor q = ops::rotate(heads.q.transpose(1, 2), reading.cos, reading.sin);
  at::Tensor k = ops::rotate(heads.k.transpose(1, 2), reading.cos, reading.sin), v = heads.v.transpose(1, 2);
  if (const LayerCache* cache = reading.cache) {
    const auto with_cached = [&](const at::Tensor& x, ops::CacheRows& rows) {
      const ops::CacheRows all = append(rows, ops::cache_rows(x, stored_as), cache->length);
      return ops::numbers_of(all, stored_as, x.scalar_type());
    };
    k = with_cached(k, *cache->keys);
    v = with_cached(v, *cache->values);
  } else if (stored_as) {
    k = ops::act_quant(k, *stored_as);
    v = ops::act_quant(v, *stored_as);
  }
  if (reading.visible.documents.starts.defined()) return attend_within(reading.visible.documents, q, k, v);
  bool grouped = spec_.num_heads != spec_.num_kv_heads;
  const auto mask = reading.visible.mask.defined() ? std::optional(reading.visible.mask) : std::nullopt;
  if (grouped && q.is_cuda() && !kernel_takes_groups(q, k, v, mask, reading.visible.causal)) {
    k = repeat_heads(k, spec_.num_heads);
    v = repeat_heads(v, spec_.num_heads);
    grouped = false;
  }
  return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0, reading.visible.causal,
                                          /*scale=*/std::nullopt, grouped);
}

}  // namespace satin::nn
