// Attention against the definition, summed in plain loops in fp64.
#include "nn/attention.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "nn/rope.h"
#include "ops/layers.h"

namespace satin::nn {
namespace {

constexpr int64_t kHidden = 12, kHeads = 4, kKvHeads = 2, kHeadDim = 6;

struct Fixture {
  ParameterStore store;
  Attention attention;
  RopeTables tables{{}, kHeadDim, at::kCPU, at::kDouble};

  explicit Fixture(bool biases)
      : store({.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true}),
        attention({"a", kHidden, kHeads, kKvHeads, kHeadDim, biases, biases, biases}, dense_linear_factory(), store) {
    at::manual_seed(11);
    const at::NoGradGuard no_grad;
    for (const Parameter& parameter : store.all()) at::Tensor(parameter.value).normal_(0, 0.5);
  }

  at::Tensor run(const at::Tensor& x, const Visibility& visible, const LayerCache* cache = nullptr) {
    const auto [cos, sin] = tables.slice(cache ? cache->length : 0, x.size(1));
    return attention.forward(x, std::vector<Reading>{{cos, sin, visible, cache}});
  }

  at::Tensor heads(const std::string& name, const at::Tensor& x, int64_t num) {
    at::Tensor y = at::matmul(x, store.at("a." + name + ".weight").t());
    if (const Parameter* bias = store.find("a." + name + ".bias")) y = y + bias->value;
    return y.view({x.size(0), num, kHeadDim});
  }

  /// One sequence x [T, H]; sees(q, k) says which keys a query reads.
  at::Tensor expected(const at::Tensor& x, const std::function<bool(int64_t, int64_t)>& sees) {
    const at::NoGradGuard no_grad;
    const int64_t num_tokens = x.size(0);
    at::Tensor q = heads("q_proj", x, kHeads), k = heads("k_proj", x, kKvHeads), v = heads("v_proj", x, kKvHeads);
    const auto normalise = [&](const at::Tensor& y, const char* name) {
      const Parameter* w = store.find(name);
      return w ? y / (y.pow(2).mean(-1, true) + 1e-6).sqrt() * w->value : y;
    };
    const auto [cos, sin] = tables.slice(0, num_tokens);
    q = ops::rotate(normalise(q, "a.q_norm.weight").transpose(0, 1).unsqueeze(0), cos, sin)[0];
    k = ops::rotate(normalise(k, "a.k_norm.weight").transpose(0, 1).unsqueeze(0), cos, sin)[0];
    at::Tensor out = at::zeros({num_tokens, kHeads, kHeadDim}, at::kDouble);
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t t = 0; t < num_tokens; ++t) {
        const int64_t group = h / (kHeads / kKvHeads);
        double total = 0;
        for (int64_t s = 0; s < num_tokens; ++s) {
          if (!sees(t, s)) continue;
          const double weight = std::exp((q[h][t] * k[group][s]).sum().item<double>() / std::sqrt(double{kHeadDim}));
          out[t][h] += weight * v[s][group];
          total += weight;
        }
        out[t][h] /= total;
      }
    at::Tensor y = at::matmul(out.view({num_tokens, -1}), store.at("a.o_proj.weight").t());
    if (const Parameter* bias = store.find("a.o_proj.bias")) y = y + bias->value;
    return y;
  }
};

at::Tensor input(int64_t batch, int64_t num_tokens) { return at::randn({batch, num_tokens, kHidden}, at::kDouble); }
bool causal(int64_t q, int64_t k) { return k <= q; }

TEST(Attention, IsCausalAndGrouped) {
  for (const bool biases : {false, true}) {
    Fixture f(biases);
    const at::Tensor x = input(2, 7);
    const at::Tensor y = f.run(x, visibility(7, 0, {}, at::kCPU));
    for (int64_t b = 0; b < 2; ++b) EXPECT_TRUE(at::allclose(y[b], f.expected(x[b], causal), 1e-9, 1e-9));
  }
}

TEST(Attention, StaysInsideDocuments) {
  Fixture f(false);
  const at::Tensor x = input(2, 6);
  const at::Tensor ids = at::tensor({0, 0, 1, 1, 1, 2, 5, 5, 5, 5, 9, 9}, at::kLong).view({2, 6});
  const Visibility visible = visibility(6, 0, ids, at::kCPU);
  const at::Tensor y = f.run(x, visible);
  EXPECT_TRUE(f.run(x, additive(visible, at::kDouble)).equal(y));
  for (int64_t b = 0; b < 2; ++b) {
    const auto same = [&](int64_t q, int64_t k) { return k <= q && at::equal(ids[b][q], ids[b][k]); };
    EXPECT_TRUE(at::allclose(y[b], f.expected(x[b], same), 1e-9, 1e-9));
  }
}

TEST(Attention, ContinuesFromACache) {
  Fixture f(true);
  const at::Tensor x = input(1, 9);
  const at::Tensor whole = f.expected(x[0], causal);
  ops::CacheRows keys, values;
  LayerCache cache{&keys, &values, 0};
  for (const int64_t step : {4, 3, 1, 1}) {
    const at::Tensor y = f.run(x.narrow(1, cache.length, step), visibility(step, cache.length, {}, at::kCPU), &cache);
    EXPECT_TRUE(at::allclose(y[0], whole.narrow(0, cache.length, step), 1e-9, 1e-9)) << "from " << cache.length;
    cache.length += step;
  }
}

TEST(Attention, GradientsEqualFiniteDifferences) {
  Fixture f(true);
  const at::Tensor x = input(2, 5), ids = at::tensor({0, 0, 0, 1, 1, 2, 2, 2, 2, 2}, at::kLong).view({2, 5});
  const at::Tensor probe = at::randn_like(x);
  for (const at::Tensor& documents : {at::Tensor(), ids}) {
    const auto value = [&] { return (f.run(x, visibility(5, 0, documents, at::kCPU)) * probe).sum(); };
    for (const Parameter& parameter : f.store.all()) {
      const at::Tensor gradient = torch::autograd::grad({value()}, {parameter.value})[0];
      const at::NoGradGuard no_grad;
      at::Tensor handle = parameter.value;
      const at::Tensor direction = at::randn_like(handle);
      const double step = 1e-6;
      handle.add_(direction, step);
      const double above = value().item<double>();
      handle.add_(direction, -2 * step);
      const double below = value().item<double>();
      handle.add_(direction, step);
      const double expected = (above - below) / (2 * step);
      EXPECT_NEAR((gradient * direction).sum().item<double>(), expected, 1e-7 * (1 + std::abs(expected)))
          << parameter.name;
    }
  }
}

}  // namespace
}  // namespace satin::nn
