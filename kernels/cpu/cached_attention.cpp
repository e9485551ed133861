// CPU kernel of cached_attention.h: its contract in plain loops.
#include "kernels/cached_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace satin::kernels {
namespace {

template <class T>
void rotate(int64_t half, const T* cos, const T* sin, const T* x, T* y) {
  for (int64_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[half + i] * sin[i];
    y[half + i] = x[half + i] * cos[i] + x[i] * sin[i];
  }
}

/// One query head over places [0, count): y.
template <class T>
void attend(int64_t count, int64_t features, const T* q, const T* keys, const T* values, std::vector<T>& weights,
            T* y) {
  weights.assign(static_cast<size_t>(count), T(0));
  const T scale = 1 / std::sqrt(static_cast<T>(features));
  T most = -std::numeric_limits<T>::infinity(), total = 0;
  for (int64_t s = 0; s < count; ++s) {
    T product = 0;
    for (int64_t d = 0; d < features; ++d) product += q[d] * keys[s * features + d];
    weights[static_cast<size_t>(s)] = product * scale;
    most = std::max(most, product * scale);
  }
  for (T& weight : weights) total += weight = std::exp(weight - most);
  std::fill(y, y + features, T(0));
  for (int64_t s = 0; s < count; ++s)
    for (int64_t d = 0; d < features; ++d) y[d] += weights[static_cast<size_t>(s)] / total * values[s * features + d];
}

}  // namespace

bool cached_attention_takes(int64_t features) {
  return features == 32 || features == 64 || features == 128 || features == 256;
}

void check(const CachedAttention& call) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("cached attention: " + what); };
  if (call.kv_heads < 1 || call.heads % call.kv_heads != 0)
    refuse(std::to_string(call.heads) + " heads, " + std::to_string(call.kv_heads) + " key-value heads");
  if (call.features < 2 || call.features % 2 != 0) refuse("features " + std::to_string(call.features));
  if (call.places < 1) refuse("places " + std::to_string(call.places));
  if (call.stored_as == ActivationFormat::kFloat8) refuse("a cache of float8");
}

template <class T>
void cached_attention_cpu(const CachedAttention& call, int64_t begin, int64_t end) {
  check(call);
  const int64_t features = call.features, half = features / 2, group = call.heads / call.kv_heads;
  std::vector<T> q(static_cast<size_t>(features)), weights;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t position = call.positions[b];
    const T* const cos = static_cast<const T*>(call.cos) + position * half;
    const T* const sin = static_cast<const T*>(call.sin) + position * half;
    for (int64_t kv = 0; kv < call.kv_heads; ++kv) {
      const int64_t of_head = (b * call.kv_heads + kv) * call.places * features;
      T* const keys = static_cast<T*>(call.keys) + of_head;
      T* const values = static_cast<T*>(call.values) + of_head;
      T *const key = keys + position * features, *const value = values + position * features;
      rotate(half, cos, sin, static_cast<const T*>(call.k) + b * call.k_stride + kv * features, key);
      std::copy_n(static_cast<const T*>(call.v) + b * call.v_stride + kv * features, features, value);
      if (call.stored_as) {
        act_quant_cpu(*call.stored_as, {1, features}, 0, 1, key, key);
        act_quant_cpu(*call.stored_as, {1, features}, 0, 1, value, value);
      }
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        rotate(half, cos, sin, static_cast<const T*>(call.q) + b * call.q_stride + h * features, q.data());
        attend(position + 1, features, q.data(), keys, values, weights,
               static_cast<T*>(call.y) + (b * call.heads + h) * features);
      }
    }
  }
}

template void cached_attention_cpu<float>(const CachedAttention&, int64_t, int64_t);
template void cached_attention_cpu<double>(const CachedAttention&, int64_t, int64_t);

}  // namespace satin::kernels
