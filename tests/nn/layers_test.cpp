// Linear, RMSNorm and the gated feed-forward layer against their formulas, element by element.
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "nn/linear_factory.h"
#include "nn/mlp.h"
#include "nn/norm.h"

namespace satin::nn {
namespace {

ParameterStore double_store() {
  return ParameterStore({.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true});
}

void randomise(ParameterStore& store) {
  at::manual_seed(5);
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : store.all()) at::Tensor(parameter.value).normal_();
}

at::Tensor random_input(at::IntArrayRef shape) { return at::randn(shape, at::kDouble).requires_grad_(true); }

/// Largest relative error of the gradient of sum(f(x) * probe) in x against central differences.
double gradient_error(const std::function<at::Tensor(const at::Tensor&)>& f, const at::Tensor& x) {
  const at::Tensor probe = at::randn_like(f(x));
  const at::Tensor gradient = torch::autograd::grad({(f(x) * probe).sum()}, {x})[0];
  const at::NoGradGuard no_grad;
  at::Tensor numeric = at::empty_like(x);
  const double step = 1e-6;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const auto moved = [&](double by) {
      at::Tensor y = x.detach().clone();
      y.view(-1)[i] += by;
      return (f(y) * probe).sum().item<double>();
    };
    numeric.view(-1)[i] = (moved(step) - moved(-step)) / (2 * step);
  }
  return ((gradient - numeric).norm() / numeric.norm()).item<double>();
}

TEST(DenseLinear, MultipliesAndAddsTheBias) {
  ParameterStore store = double_store();
  const auto linear = dense_linear_factory()({"p", 3, 2, true}, store);
  randomise(store);
  const at::Tensor w = store.at("p.weight"), b = store.at("p.bias"), x = random_input({4, 3});
  ASSERT_EQ(w.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(store.find("p.bias")->role, Role::kBias);
  const at::Tensor y = linear->forward(x);
  for (int64_t n = 0; n < 4; ++n)
    for (int64_t o = 0; o < 2; ++o) {
      double expected = b[o].item<double>();
      for (int64_t i = 0; i < 3; ++i) expected += x[n][i].item<double>() * w[o][i].item<double>();
      EXPECT_NEAR(y[n][o].item<double>(), expected, 1e-12);
    }
  EXPECT_LT(gradient_error([&](const at::Tensor& in) { return linear->forward(in); }, x), 1e-8);
}

TEST(DenseLinear, CastsToTheComputeDtypeAndSharesWeights) {
  ParameterStore store({.compute_dtype = at::kBFloat16, .trainable = true});
  const auto linear = dense_linear_factory()({"p", 8, 4, false}, store);
  randomise(store);
  const at::Tensor w = store.at("p.weight");
  EXPECT_EQ(w.scalar_type(), at::kFloat);
  EXPECT_EQ(linear->weight().scalar_type(), at::kBFloat16);
  const auto shared = tied_linear(*linear);
  const at::Tensor x = at::randn({3, 8}).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(shared->forward(x), linear->forward(x)));
  shared->forward(x).sum().backward();
  EXPECT_EQ(w.grad().scalar_type(), at::kFloat);
}

TEST(RmsNorm, FollowsTheFormula) {
  ParameterStore store = double_store();
  const RmsNorm norm("n", 6, 1e-2, store);
  randomise(store);
  const at::Tensor w = store.at("n.weight"), x = random_input({2, 3, 6});
  const at::Tensor y = norm.forward(x);
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t t = 0; t < 3; ++t) {
      double squares = 0;
      for (int64_t i = 0; i < 6; ++i) squares += std::pow(x[b][t][i].item<double>(), 2);
      for (int64_t i = 0; i < 6; ++i)
        EXPECT_NEAR(y[b][t][i].item<double>(),
                    x[b][t][i].item<double>() / std::sqrt(squares / 6 + 1e-2) * w[i].item<double>(), 1e-12);
    }
  EXPECT_LT(gradient_error([&](const at::Tensor& in) { return norm.forward(in); }, x), 1e-8);
}

TEST(RmsNorm, RoundsOnceWhenComputeIsNarrow) {
  ParameterStore narrow({.compute_dtype = at::kBFloat16}), wide(BuildOptions{});
  const RmsNorm a("n", 64, 1e-5, narrow), b("n", 64, 1e-5, wide);
  randomise(narrow);
  at::Tensor(wide.at("n.weight")).copy_(narrow.at("n.weight"));
  const at::Tensor x = at::randn({5, 64}) * 30;
  EXPECT_TRUE(at::equal(a.forward(x), b.forward(x).to(at::kBFloat16)));
}

TEST(GatedMlp, FollowsTheFormula) {
  ParameterStore store = double_store();
  const GatedMlp mlp("m", 3, 5, true, dense_linear_factory(), store);
  randomise(store);
  const at::Tensor x = random_input({2, 3});
  const auto project = [&](const std::string& name, const at::Tensor& in) {
    return at::mv(store.at("m." + name + ".weight"), in) + store.at("m." + name + ".bias");
  };
  for (int64_t n = 0; n < 2; ++n) {
    const at::Tensor gate = project("gate_proj", x[n]);
    const at::Tensor inner = gate / (1 + (-gate).exp()) * project("up_proj", x[n]);
    EXPECT_TRUE(at::allclose(mlp.forward(x)[n], project("down_proj", inner), 1e-12, 1e-12));
  }
  EXPECT_LT(gradient_error([&](const at::Tensor& in) { return mlp.forward(in); }, x), 1e-7);
}

}  // namespace
}  // namespace satin::nn
