#include "quant/quant_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace satin::quant {
namespace {

constexpr Scheme kScheme{Method::kLsqAsymmetric, 2, 64};

struct Layer {
  nn::ParameterStore store;
  QuantLinear linear;
  Layer(nn::BuildOptions options, const Scheme& scheme, bool bias = false)
      : store(options), linear({"m", 128, 8, bias}, scheme, store) {
    at::manual_seed(3);
    const at::NoGradGuard no_grad;
    store.at("m.weight").copy_(at::randn({8, 128}) * 0.05);
    if (bias) store.at("m.bias").copy_(at::randn({8}));
    linear.initialise();
  }
};

TEST(QuantLinear, Parameters) {
  const Layer learned({at::kCPU, at::kBFloat16, at::kBFloat16, true}, kScheme, true);
  ASSERT_EQ(learned.store.all().size(), 4u);
  EXPECT_EQ(learned.store.find("m.weight_scale")->role, nn::Role::kScale);
  EXPECT_EQ(learned.store.find("m.weight_zero_point")->role, nn::Role::kZeroPoint);
  EXPECT_EQ(learned.store.at("m.weight_scale").sizes(), (std::vector<int64_t>{8, 2}));
  EXPECT_EQ(learned.store.at("m.weight_scale").scalar_type(), at::kFloat) << "whatever the master dtype";
  EXPECT_EQ(learned.store.at("m.weight").scalar_type(), at::kBFloat16);
  const Layer plain({}, {Method::kMinMaxAsymmetric, 2, 64});
  EXPECT_EQ(plain.store.all().size(), 1u) << "min-max has no parameters";
  const Layer row({}, {Method::kLsq, 2, -1});
  EXPECT_EQ(row.store.at("m.weight_scale").sizes(), (std::vector<int64_t>{8, 1}));
  const Layer exact({at::kCPU, at::kDouble, at::kDouble, true}, kScheme);
  EXPECT_EQ(exact.store.at("m.weight_scale").scalar_type(), at::kDouble);
}

TEST(QuantLinear, ForwardMultipliesWithItsWeight) {
  Layer layer({}, kScheme, true);
  const at::Tensor x = at::randn({2, 3, 128});
  const at::Tensor expected =
      (x.to(at::kDouble).matmul(layer.linear.weight().to(at::kDouble).t()) + layer.store.at("m.bias").to(at::kDouble));
  EXPECT_LT((layer.linear.forward(x) - expected).abs().max().item<double>(), 1e-5);
  // A group has at most four values.
  const at::Tensor group = layer.linear.weight().narrow(0, 0, 1).narrow(1, 0, 64).contiguous();
  EXPECT_LE(std::get<0>(at::_unique(group)).numel(), 4);
}

TEST(QuantLinear, GradientsReachEveryParameter) {
  for (Method method : {Method::kLsq, Method::kLsqAsymmetric, Method::kSeq, Method::kTernary, Method::kMinMaxSymmetric,
                        Method::kMinMaxAsymmetric, Method::kBinary, Method::kBitNet}) {
    SCOPED_TRACE(to_string(method));
    Scheme scheme = kScheme;
    scheme.method = method;
    if (method == Method::kBinary) scheme.bits = 1;
    Layer layer({at::kCPU, at::kFloat, at::kBFloat16, true}, scheme);
    const at::Tensor x = at::randn({4, 128}).to(at::kBFloat16);
    layer.linear.forward(x).to(at::kFloat).square().sum().backward();
    for (const nn::Parameter& parameter : layer.store.all()) {
      ASSERT_TRUE(parameter.value.grad().defined()) << parameter.name;
      EXPECT_TRUE(at::isfinite(parameter.value.grad()).all().item<bool>()) << parameter.name;
      EXPECT_GT(parameter.value.grad().abs().sum().item<float>(), 0) << parameter.name;
    }
    // Asked for in fp32 the weight is the same number and takes fp32 gradients.
    EXPECT_EQ(layer.linear.weight(at::kFloat).scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(layer.linear.weight(at::kFloat).to(at::kBFloat16), layer.linear.weight()));
  }
}

TEST(QuantLinear, TrainingReducesTheOutputsError) {
  // Plain steps on the squared distance to the full-precision layer. Inputs of rank 16 leave 128 weights an output
  // enough freedom to do better than round-to-nearest of each.
  Layer layer({at::kCPU, at::kFloat, at::kFloat, true}, kScheme);
  const at::Tensor dense = layer.store.at("m.weight").detach().clone();
  const at::Tensor x = at::randn({256, 16}).matmul(at::randn({16, 128})) / 4;
  const auto loss = [&] { return (layer.linear.forward(x) - x.matmul(dense.t())).square().mean(); };
  const double before = loss().item<double>();
  double best = before;
  for (int step = 0; step < 100; ++step) {
    const at::Tensor now = loss();
    best = std::min(best, now.item<double>());
    now.backward();
    const at::NoGradGuard no_grad;
    for (const nn::Parameter& parameter : layer.store.all()) {
      const double rate = parameter.role == nn::Role::kWeight ? 0.02 : parameter.role == nn::Role::kScale ? 1e-4 : 1e-2;
      parameter.value.sub_(parameter.value.grad() * rate);
      parameter.value.mutable_grad().zero_();
    }
  }
  EXPECT_LT(best, 0.5 * before);
}

TEST(QuantLinear, DamagedWeightsAreNamed) {
  Layer layer({}, kScheme);
  layer.store.at("m.weight")[0][0] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(layer.linear.initialise(), UserError);
  layer.store.at("m.weight")[0][0] = std::nan("");
  EXPECT_THROW(layer.linear.initialise(), UserError);
}

}  // namespace
}  // namespace satin::quant
