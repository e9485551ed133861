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

/// One head's rows of a cache, of whatever format, as numbers.
template <class T>
class Rows {
 public:
  Rows(const CachedAttention& call, void* rows, void* scales, int64_t head)
      : stored_as_(call.stored_as), features_(call.features) {
    const int64_t first = head * call.places;
    if (!stored_as_) {
      numbers_ = static_cast<T*>(rows) + first * features_;
      return;
    }
    bytes_ = static_cast<uint8_t*>(rows) + first * row_bytes();
    scales_ = static_cast<T*>(scales) + first;
  }

  void put(int64_t place, const T* x) {
    if (!stored_as_) {
      std::copy_n(x, features_, numbers_ + place * features_);
      return;
    }
    std::vector<uint8_t> codes(static_cast<size_t>(features_));
    act_quant_codes_cpu(*stored_as_, {1, features_}, 0, 1, x, codes.data(), scales_ + place);
    uint8_t* const to = bytes_ + place * row_bytes();
    if (is_int8()) {
      std::copy(codes.begin(), codes.end(), to);
    } else {
      for (size_t i = 0; i < codes.size() / 2; ++i)
        to[i] = static_cast<uint8_t>((codes[2 * i] & 15) | codes[2 * i + 1] << 4);
    }
  }

  /// Of places [0, count); `scratch` has them where the cache has not.
  const T* numbers(int64_t count, std::vector<T>& scratch) const {
    if (!stored_as_) return numbers_;
    scratch.resize(static_cast<size_t>(count * features_));
    for (int64_t s = 0; s < count; ++s)
      for (int64_t d = 0; d < features_; ++d)
        scratch[static_cast<size_t>(s * features_ + d)] = scales_[s] * static_cast<T>(level(s, d));
    return scratch.data();
  }

 private:
  bool is_int8() const { return *stored_as_ == ActivationFormat::kInt8; }
  int64_t row_bytes() const { return is_int8() ? features_ : features_ / 2; }
  int level(int64_t place, int64_t feature) const {
    const uint8_t* const row = bytes_ + place * row_bytes();
    if (is_int8()) return static_cast<int8_t>(row[feature]);
    const int half = row[feature / 2] >> 4 * (feature % 2) & 15;
    return half < 8 ? half : half - 16;
  }

  std::optional<ActivationFormat> stored_as_;
  int64_t features_;
  T* numbers_ = nullptr;  ///< [places, D], or of integers
  uint8_t* bytes_ = nullptr;
  T* scales_ = nullptr;
};

}  // namespace

bool cached_attention_takes(int64_t features) {
  return features == 32 || features == 64 || features == 128 || features == 256;
}

void check(const CachedAttention& call) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("cached attention: " + what); };
  if (call.kv_heads < 1 || call.heads % call.kv_heads != 0)
    refuse(std::to_string(call.heads) + " heads, " + std::to_string(call.kv_heads) + " key-value heads");
  if (call.features < 2 || call.features % 2 != 0)
    refuse("expected an even number of features a head (the rotation turns pairs, and int4 has two to a byte), found " +
           std::to_string(call.features) + "; pad the heads with a feature of zeros");
  if (call.places < 1) refuse("places " + std::to_string(call.places));
  if (call.stored_as == ActivationFormat::kFloat8)
    refuse("expected a cache of int8, int4 or numbers, found float8; use int8");
  if (call.stored_as && !(call.key_scales && call.value_scales))
    refuse(
        "expected a scale for each key and value of integers, found none; make the cache with the format that it is "
        "used with");
}

template <class T>
void cached_attention_cpu(const CachedAttention& call, int64_t begin, int64_t end) {
  check(call);
  const int64_t features = call.features, half = features / 2, group = call.heads / call.kv_heads;
  std::vector<T> q(static_cast<size_t>(features)), key(q), weights, key_numbers, value_numbers;
  for (int64_t b = begin; b < end; ++b) {
    const int64_t position = call.positions[b];
    const T* const cos = static_cast<const T*>(call.cos) + position * half;
    const T* const sin = static_cast<const T*>(call.sin) + position * half;
    for (int64_t kv = 0; kv < call.kv_heads; ++kv) {
      Rows<T> keys(call, call.keys, call.key_scales, b * call.kv_heads + kv);
      Rows<T> values(call, call.values, call.value_scales, b * call.kv_heads + kv);
      rotate(half, cos, sin, static_cast<const T*>(call.k) + b * call.k_stride + kv * features, key.data());
      keys.put(position, key.data());
      values.put(position, static_cast<const T*>(call.v) + b * call.v_stride + kv * features);
      const T* const all_keys = keys.numbers(position + 1, key_numbers);
      const T* const all_values = values.numbers(position + 1, value_numbers);
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        rotate(half, cos, sin, static_cast<const T*>(call.q) + b * call.q_stride + h * features, q.data());
        attend(position + 1, features, q.data(), all_keys, all_values, weights,
               static_cast<T*>(call.y) + (b * call.heads + h) * features);
      }
    }
  }
}

template void cached_attention_cpu<float>(const CachedAttention&, int64_t, int64_t);
template void cached_attention_cpu<double>(const CachedAttention&, int64_t, int64_t);

}  // namespace satin::kernels
