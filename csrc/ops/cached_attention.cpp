#include "ops/cached_attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/error.h"
#include "kernels/cached_attention.h"
#include "ops/decode_kernels.h"
#include "ops/device.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

/// Heads and their features one after the other.
at::Tensor with_dense_rows(const at::Tensor& x) {
  return x.stride(2) == 1 && x.stride(1) == x.size(2) ? x : x.contiguous();
}

/// Keys or values of a cache that holds what `stored_as` says.
void check_rows(const CacheRows& held, std::optional<ActivationFormat> stored_as, at::IntArrayRef sizes,
                const at::Tensor& q) {
  std::vector<int64_t> expected = sizes.vec();
  if (stored_as == ActivationFormat::kInt4) expected.back() /= 2;
  const at::ScalarType dtype = stored_as ? at::kChar : q.scalar_type();
  SATIN_CHECK(held.rows.sizes() == expected && held.rows.scalar_type() == dtype && held.rows.is_contiguous() &&
                  held.rows.device() == q.device(),
              "a cache of ", at::IntArrayRef(expected), " ", dtype, " was expected, one of ", held.rows.sizes(), " ",
              held.rows.scalar_type(), " found");
  SATIN_CHECK(held.scales.defined() == stored_as.has_value(), "scales are for integers, and these need them");
  if (!stored_as) return;
  SATIN_CHECK(held.scales.sizes() == sizes.slice(0, 3) && held.scales.is_contiguous() &&
                  held.scales.scalar_type() == (q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat) &&
                  held.scales.device() == q.device(),
              "scales ", held.scales.sizes(), " ", held.scales.scalar_type(), " of keys ", sizes);
}

void* data(const at::Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; }

}  // namespace

bool serves_cached_attention(at::Device device, at::ScalarType dtype, int64_t head_dim) {
  if (device.is_cpu()) return dtype == at::kFloat || dtype == at::kDouble;
  return compute_capability(device) == 90 && (dtype == at::kBFloat16 || dtype == at::kHalf) &&
         kernels::cached_attention_takes(head_dim);
}

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionCache& cache,
                            std::optional<ActivationFormat> stored_as) {
  SATIN_CHECK(
      q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(2) == k.size(2), "q ",
      q.sizes(), ", k ", k.sizes(), ", v ", v.sizes());
  const int64_t sequences = q.size(0), features = q.size(2);
  SATIN_CHECK(cache.keys.rows.dim() == 4, "keys ", cache.keys.rows.sizes());
  const int64_t places = cache.keys.rows.size(2);
  for (const CacheRows* held : {&cache.keys, &cache.values})
    check_rows(*held, stored_as, {sequences, k.size(1), places, features}, q);
  SATIN_CHECK(cache.positions.numel() == sequences && cache.positions.scalar_type() == at::kLong, "positions ",
              cache.positions.sizes());
  SATIN_CHECK(cache.cos.size(0) >= places && cache.cos.size(1) == features / 2 && cache.cos.is_contiguous() &&
                  cache.sin.is_contiguous() && cache.sin.sizes() == cache.cos.sizes(),
              "cos ", cache.cos.sizes(), " of ", places, " places");
  for (const at::Tensor& each : {k, v})
    SATIN_CHECK(each.scalar_type() == q.scalar_type() && each.device() == q.device(), each.scalar_type(), " beside ",
                q.scalar_type());
  SATIN_CHECK(cache.cos.device() == q.device() && cache.positions.device() == q.device(), "devices");
  SATIN_CHECK(serves_cached_attention(q.device(), q.scalar_type(), features), features, " features of ",
              q.scalar_type(), " on ", q.device());
  const at::Tensor queries = with_dense_rows(q), fresh_keys = with_dense_rows(k), fresh_values = with_dense_rows(v);
  at::Tensor y = at::empty({sequences, q.size(1) * features}, q.options());
  const kernels::CachedAttention call{.sequences = sequences,
                                      .heads = q.size(1),
                                      .kv_heads = k.size(1),
                                      .features = features,
                                      .places = places,
                                      .stored_as = stored_as,
                                      .q = queries.const_data_ptr(),
                                      .k = fresh_keys.const_data_ptr(),
                                      .v = fresh_values.const_data_ptr(),
                                      .q_stride = queries.stride(0),
                                      .k_stride = fresh_keys.stride(0),
                                      .v_stride = fresh_values.stride(0),
                                      .cos = cache.cos.const_data_ptr(),
                                      .sin = cache.sin.const_data_ptr(),
                                      .positions = cache.positions.const_data_ptr<int64_t>(),
                                      .keys = data(cache.keys.rows),
                                      .values = data(cache.values.rows),
                                      .key_scales = data(cache.keys.scales),
                                      .value_scales = data(cache.values.scales),
                                      .y = y.mutable_data_ptr()};
  if (q.is_cuda()) {
    cached_attention_cuda(call, q.scalar_type(), q.device());
    return y;
  }
  for_scalar(q.scalar_type(), [&]<class T>(T) {
    at::parallel_for(0, sequences, 1,
                     [&](int64_t begin, int64_t end) { kernels::cached_attention_cpu<T>(call, begin, end); });
  });
  return y;
}

}  // namespace satin::ops
