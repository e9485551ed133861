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
  SATIN_CHECK(cache.keys.dim() == 4 && cache.keys.is_contiguous() && cache.values.is_contiguous() &&
                  cache.values.sizes() == cache.keys.sizes() && cache.keys.size(0) == sequences &&
                  cache.keys.size(1) == k.size(1) && cache.keys.size(3) == features,
              "keys ", cache.keys.sizes(), " of k ", k.sizes());
  const int64_t places = cache.keys.size(2);
  SATIN_CHECK(cache.positions.numel() == sequences && cache.positions.scalar_type() == at::kLong, "positions ",
              cache.positions.sizes());
  SATIN_CHECK(cache.cos.size(0) >= places && cache.cos.size(1) == features / 2 && cache.cos.is_contiguous() &&
                  cache.sin.is_contiguous() && cache.sin.sizes() == cache.cos.sizes(),
              "cos ", cache.cos.sizes(), " of ", places, " places");
  for (const at::Tensor& each : {k, v, cache.keys, cache.values})
    SATIN_CHECK(each.scalar_type() == q.scalar_type() && each.device() == q.device(), each.scalar_type(), " beside ",
                q.scalar_type());
  SATIN_CHECK(cache.cos.device() == q.device() && cache.positions.device() == q.device(), "devices");
  SATIN_CHECK(serves_cached_attention(q.device(), q.scalar_type(), features), features, " features of ",
              q.scalar_type(), " on ", q.device());
  const at::Tensor queries = with_dense_rows(q), fresh_keys = with_dense_rows(k), fresh_values = with_dense_rows(v);
  at::Tensor y = at::empty({sequences, q.size(1) * features}, q.options());
  at::Tensor keys = cache.keys, values = cache.values;
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
                                      .keys = keys.mutable_data_ptr(),
                                      .values = values.mutable_data_ptr(),
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
