// Cases of decoding on every device, with what is expected of them in double, composed of PyTorch's operators.
#pragma once
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <vector>

#include "ops/cached_attention.h"
#include "ops/decode_rows.h"

namespace satin::ops {

inline double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.cpu().to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
}

struct AttentionCase {
  int64_t heads, kv_heads, features, places;
  std::vector<int64_t> positions;  ///< of each sequence
  std::optional<ActivationFormat> stored_as = {};
};
inline std::ostream& operator<<(std::ostream& out, const AttentionCase& c) {
  return out << c.heads << " heads of " << c.kv_heads << ", " << c.features << " features, " << c.positions.size()
             << " sequences"
             << (!c.stored_as                             ? ""
                 : c.stored_as == ActivationFormat::kInt8 ? ", int8"
                                                          : ", int4");
}
inline std::vector<AttentionCase> attention_cases() {
  return {{4, 2, 64, 1, {0}},
          {8, 2, 64, 700, {0, 1, 127, 128, 129, 511, 512, 699}},
          {6, 6, 32, 40, {39, 7}},
          {14, 2, 128, 300, {255, 299}},
          {2, 1, 256, 70, {69}},
          // Tiles of 16 places, and groups of fewer heads than a product has, as many, and more.
          {6, 2, 64, 40, {15, 16, 17}},
          {16, 2, 128, 33, {15, 16, 17, 32}},
          {16, 1, 64, 600, {15, 599, 16}},
          {32, 2, 64, 20, {17, 15}, ActivationFormat::kInt8},
          {3, 1, 128, 260, {16, 255}, ActivationFormat::kInt4},
          {16, 2, 64, 90, {89, 50, 3}, ActivationFormat::kInt8},
          {4, 2, 64, 1100, {0, 1, 128, 511, 1099}, ActivationFormat::kInt8},
          {6, 6, 32, 40, {39, 7}, ActivationFormat::kInt8},
          {2, 1, 256, 70, {69}, ActivationFormat::kInt8},
          {4, 2, 128, 90, {88}, ActivationFormat::kInt4},
          {8, 2, 64, 4200, {4199, 0, 130}, ActivationFormat::kInt4},
          {9, 3, 64, 60, {59, 31}, ActivationFormat::kInt4},
          {2, 2, 256, 70, {69, 1}, ActivationFormat::kInt4},
          {8, 2, 32, 300, {299, 128}, ActivationFormat::kInt4}};
}

struct AttentionData {
  AttentionCase of;
  at::Tensor q, k, v;
  at::Tensor keys, values;  ///< of the cache before, as numbers
  AttentionCache cache;
  at::Tensor expected;  ///< [B, H D] double on the CPU

  AttentionData(const AttentionCase& c, at::Device device, at::ScalarType dtype) : of(c) {
    at::manual_seed(c.features + c.places);
    const auto sequences = static_cast<int64_t>(c.positions.size());
    const auto on_device = [&](const at::Tensor& x) { return x.to(dtype).to(device); };
    // Query, key and value are parts of one matrix, as a joined projection gives them.
    const at::Tensor qkv = on_device(at::randn({sequences, c.heads + 2 * c.kv_heads, c.features}));
    const auto parts = qkv.split_with_sizes({c.heads, c.kv_heads, c.kv_heads}, 1);
    q = parts[0], k = parts[1], v = parts[2];
    cache.keys = held(on_device(at::randn({sequences, c.kv_heads, c.places, c.features})));
    cache.values = held(on_device(at::randn({sequences, c.kv_heads, c.places, c.features})));
    keys = numbers_of(cache.keys, c.stored_as, dtype);
    values = numbers_of(cache.values, c.stored_as, dtype);
    cache.positions = at::tensor(c.positions, at::kLong).to(device);
    const at::Tensor angles = at::rand({c.places + 3, c.features / 2}) * 6;
    const at::ScalarType tables = dtype == at::kDouble ? at::kDouble : at::kFloat;
    cache.cos = angles.cos().to(tables).to(device);
    cache.sin = angles.sin().to(tables).to(device);
    expect();
  }

  /// As a cache, which is written to.
  AttentionCache copy() const {
    const auto copied = [](const CacheRows& x) {
      return CacheRows{x.rows.clone(), x.scales.defined() ? x.scales.clone() : x.scales};
    };
    return {copied(cache.keys), copied(cache.values), cache.positions, cache.cos, cache.sin};
  }

  /// Nothing but the new places is written, and there are the very bits of cache_rows.
  void expect_one_new_place(const AttentionCache& after) const {
    for (const auto& [found, before, fresh] :
         {std::tuple(after.keys, cache.keys, held(rotated(k))), std::tuple(after.values, cache.values, held(v))})
      for (at::Tensor CacheRows::*const part : {&CacheRows::rows, &CacheRows::scales}) {
        if (!(before.*part).defined()) continue;
        at::Tensor expected = (before.*part).clone();
        for (size_t i = 0; i < of.positions.size(); ++i) {
          const auto at = static_cast<int64_t>(i);
          expected[at].select(1, of.positions[i]).copy_((fresh.*part)[at]);
        }
        EXPECT_TRUE((found.*part).equal(expected));
      }
  }

  /// Attention over the same numbers in a cache of numbers: rotated before, and rounded, so that it does neither.
  at::Tensor over_numbers() const {
    const auto rounded = [&](const at::Tensor& x) {
      return numbers_of(held(x), of.stored_as, q.scalar_type()).contiguous();
    };
    const AttentionCache plain{
        {keys.clone(), {}}, {values.clone(), {}}, cache.positions, at::ones_like(cache.cos), at::zeros_like(cache.sin)};
    return cached_attention(rotated(q), rounded(rotated(k)), rounded(v), plain);
  }

 private:
  at::Tensor wide(const at::Tensor& x) const {  // half has no operator that makes levels; float's are the same
    return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  }
  CacheRows held(const at::Tensor& x) const { return cache_rows(of.stored_as ? wide(x) : x, of.stored_as); }
  /// The bits of rope.h: products and sums of their own.
  at::Tensor rotated(const at::Tensor& x) const {
    const at::Tensor cos = cache.cos.index_select(0, cache.positions).unsqueeze(1),
                     sin = cache.sin.index_select(0, cache.positions).unsqueeze(1);
    const auto halves = wide(x).chunk(2, -1);
    return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1).to(x.scalar_type());
  }

  void expect() {
    const at::ScalarType dtype = q.scalar_type();
    const auto in_double = [](const at::Tensor& x) { return x.cpu().to(at::kDouble); };
    const auto rounded = [&](const at::Tensor& x) { return x.to(dtype).to(at::kDouble); };
    std::vector<at::Tensor> ys;
    for (size_t i = 0; i < of.positions.size(); ++i) {
      const auto b = static_cast<int64_t>(i);
      const int64_t position = of.positions[i];
      const at::Tensor cos = in_double(cache.cos[position]), sin = in_double(cache.sin[position]);
      const auto rotated = [&](const at::Tensor& x) {
        const auto halves = x.chunk(2, -1);
        return rounded(at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1));
      };
      const auto stored = [&](const at::Tensor& x) {
        if (!of.stored_as) return x;
        const double top = *of.stored_as == ActivationFormat::kInt8 ? 127 : 7;
        const at::Tensor scale = x.abs().amax(-1, true) / top;
        return rounded((x / scale).round() * scale);
      };
      const at::Tensor key = stored(rotated(in_double(k[b]))), value = stored(in_double(v[b]));
      const auto with = [&](const at::Tensor& before, const at::Tensor& fresh) {
        return at::cat({in_double(before[b]).narrow(1, 0, position), fresh.unsqueeze(1)}, 1)
            .repeat_interleave(of.heads / of.kv_heads, 0);
      };
      const at::Tensor scores =
          at::bmm(with(keys, key), rotated(in_double(q[b])).unsqueeze(2)) / std::sqrt(double(of.features));
      ys.push_back((scores.softmax(1) * with(values, value)).sum(1).reshape(-1));
    }
    expected = at::stack(ys);
  }
};

inline PackedWeight random_packed(int64_t rows, int64_t columns, int64_t groups, int bits, bool zeros) {
  const at::Tensor zero = zeros && bits > 1 ? at::randint(1 << bits, {rows, groups}, at::kInt)
                                            : at::full({rows, groups}, 1 << (bits - 1), at::kInt);
  return pack_weight(at::randint(1 << bits, {rows, columns}, at::kByte),
                     ((at::rand({rows, groups}) * .1 + .01) * (4. / (1 << bits))).to(at::kBFloat16), zero, bits, 1,
                     at::kFloat);
}

struct DecodeCase {
  int64_t num_rows, out, in, groups;
  int bits;
  bool normed, gated, has_bias, wide, has_residual;
};
inline std::ostream& operator<<(std::ostream& out, const DecodeCase& c) {
  return out << c.num_rows << " rows, [" << c.out << ", " << c.in << "], " << c.bits << " bits"
             << (c.normed ? ", normed" : "") << (c.gated ? ", gated" : "") << (c.wide ? ", wide" : "")
             << (c.has_residual ? ", residual" : "");
}
inline std::vector<DecodeCase> decode_cases() {
  std::vector<DecodeCase> cases;
  for (const int bits : {1, 2, 3, 4, 8})
    for (const bool normed : {false, true})
      for (const int64_t num_rows : {1, 3, 4, 6, 16}) {
        cases.push_back({num_rows, 200, 512, 8, bits, normed, false, true, false, false});
        cases.push_back({num_rows, 70, 328, 1, bits, normed, false, false, true, true});
        cases.push_back({num_rows, 48, 4096, 32, bits, normed, false, false, true, false});
        cases.push_back({num_rows, 96, 512, 4, bits, normed, true, true, false, false});
        cases.push_back({num_rows, 5000, 264, 1, bits, normed, false, false, false, false});
        cases.push_back({num_rows, 6400, 128, 2, bits, normed, true, false, false, false});
      }
  return cases;
}

struct DecodeData {
  DecodeCase of;
  PackedWeight weight;
  at::ScalarType dtype;
  at::Tensor x, norm_weight, bias, residual;
  static constexpr double kEps = 1e-5;

  DecodeData(const DecodeCase& c, at::Device device, at::ScalarType of_dtype) : of(c), dtype(of_dtype) {
    at::manual_seed(c.bits + c.in);
    const at::ScalarType statistics = dtype == at::kDouble ? at::kDouble : at::kFloat;
    weight = random_packed(c.out, c.in, c.groups, c.bits, true).to(device);
    x = at::randn({c.num_rows, c.in}).to(c.normed ? statistics : dtype).to(device);
    if (c.normed) norm_weight = (at::rand({c.in}) + .5).to(statistics).to(device);
    if (c.has_bias) bias = at::randn({c.out}).to(dtype).to(device);
    if (c.has_residual) residual = (at::randn({c.num_rows, c.out}) * 10).to(statistics).to(device);
  }
  DecodeRows call() const {
    return {.weight = weight,
            .dtype = dtype,
            .x = x,
            .norm_weight = norm_weight,
            .norm_eps = kEps,
            .bias = bias,
            .gated = of.gated,
            .wide = of.wide,
            .residual = residual};
  }
  /// In double.
  at::Tensor expected() const {
    const auto in_double = [](const at::Tensor& t) { return t.cpu().to(at::kDouble); };
    at::Tensor made = in_double(x);
    if (of.normed) made = made / (made.square().mean(-1, true) + kEps).sqrt() * in_double(norm_weight);
    at::Tensor y = at::linear(made, dequantize_rows(weight.to(at::kCPU), 0, of.out, at::kDouble));
    if (bias.defined()) y = y + in_double(bias);
    if (of.gated) {
      const auto halves = y.chunk(2, -1);
      return at::silu(halves[0]) * halves[1];
    }
    return residual.defined() ? y + in_double(residual) : y;
  }
};

}  // namespace satin::ops
