#include "quant/quant_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace satin::quant {
namespace {

const Scheme kScheme{Method::kLsqAsymmetric, 2, 64};

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
                        Method::kMinMaxAsymmetric, Method::kBinary, Method::kBitNet, Method::kLwc, Method::kOneBit}) {
    SCOPED_TRACE(to_string(method));
    Scheme scheme = kScheme;
    scheme.method = method;
    if (method == Method::kBinary || method == Method::kOneBit) scheme.bits = 1;
    if (method == Method::kOneBit) scheme.group_size = -1;
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

TEST(QuantLinear, ImportanceLowersTheOutputsError) {
  const at::NoGradGuard no_grad;
  for (Method method : {Method::kLsq, Method::kLsqAsymmetric, Method::kSeq, Method::kTernary}) {
    SCOPED_TRACE(to_string(method));
    Layer layer({}, {.method = method, .bits = 2, .group_size = 64, .init = Init::kWeightedSearch});
    const at::Tensor x = at::randn({2048, 128}) * at::randn({128}).exp();
    const auto error = [&] {
      const at::Tensor change = layer.linear.weight() - layer.linear.master_weight();
      return x.to(at::kDouble).matmul(change.to(at::kDouble).t()).square().sum().item<double>();
    };
    const double plain = error();
    layer.linear.observe(true);
    for (const at::Tensor& part : x.view({4, 512, 128}).unbind()) layer.linear.forward(part);
    layer.linear.observe(false);
    layer.linear.forward(x * 100);  // nobody looks any more
    layer.linear.initialise();
    EXPECT_LT(error(), 0.95 * plain);
    EXPECT_LT((layer.linear.statistics()->squares / x.square().sum(0) - 1).abs().max().item<double>(), 1e-5);
    EXPECT_EQ(layer.linear.statistics()->largest.max().item<float>(), x.abs().max().item<float>());
  }
}

TEST(QuantLinear, OffItIsItsMasterWeight) {
  Layer layer({at::kCPU, at::kFloat, at::kFloat, true}, kScheme);
  layer.linear.enable(false);
  EXPECT_TRUE(layer.linear.weight().is_same(layer.store.at("m.weight")));
  layer.linear.enable(true);
  EXPECT_FALSE(at::equal(layer.linear.weight(), layer.store.at("m.weight")));
}

// The coarser grid's levels are levels of the finer one, so quantizing the finer grid's weight to the coarser changes
// it by no more than half a coarse step.
TEST(QuantLinear, HardeningKeepsTheRange) {
  for (Method method : {Method::kLsq, Method::kLsqAsymmetric}) {
    SCOPED_TRACE(to_string(method));
    Layer layer({}, {method, 8, 64, Storage::kExact, Storage::kExact});
    const at::NoGradGuard no_grad;
    const at::Tensor fine = layer.linear.weight();
    const at::Tensor step = layer.store.at("m.weight_scale").clone();
    layer.linear.set_bits(4, /*keep_range=*/true);
    EXPECT_EQ(layer.linear.scheme().bits, 4);
    EXPECT_TRUE(at::equal(layer.store.at("m.weight_scale"), step * 16));
    const at::Tensor levels = layer.linear.weight().view({8, 2, 64}) / step.unsqueeze(-1);
    EXPECT_LT((levels - at::round(levels)).abs().max().item<float>(), 1e-3) << "levels of the finer grid";
    // Half a coarse step inside; the highest level is 15 fine steps below the finer grid's end; zero points are
    // rounded.
    const double bound = method == Method::kLsq ? 15.5 : 23.5;
    EXPECT_LT(((layer.linear.weight() - fine).view({8, 2, 64}) / step.unsqueeze(-1)).abs().max().item<float>(), bound);
  }
  Layer fixed({}, {Method::kSeq, 2, 64});
  EXPECT_THROW(fixed.linear.set_bits(4, true), InternalError);
}

// One scale a tensor against the same numbers with that scale in every row; its gradient is their sum with the
// multiplier of all weights.
TEST(QuantLinear, OneScaleATensor) {
  for (Method method :
       {Method::kLsq, Method::kLsqAsymmetric, Method::kBinary, Method::kMinMaxAsymmetric, Method::kBitNet}) {
    SCOPED_TRACE(to_string(method));
    const int bits = method == Method::kBinary ? 1 : 2;
    Layer whole({at::kCPU, at::kFloat, at::kFloat, true}, {method, bits, 0}),
        rows({at::kCPU, at::kFloat, at::kFloat, true}, {method, bits, -1});
    const QuantizerState state = whole.linear.state();
    EXPECT_EQ(state.scale.sizes(), (std::vector<int64_t>{8, 1}));
    EXPECT_EQ(std::get<0>(at::_unique(state.scale.detach())).numel(), 1);
    if (!whole.linear.scheme().learned_scale()) {
      const at::Tensor w = whole.store.at("m.weight").detach();
      const double expected =
          method == Method::kBitNet ? w.abs().mean().item<double>() : (w.max() - w.min()).item<double>() / 3;
      EXPECT_NEAR(state.scale[0][0].item<double>(), expected, 5e-3 * expected);  // stored in 16 bits
      continue;
    }
    EXPECT_EQ(whole.store.at("m.weight_scale").numel(), 1);
    {
      const at::NoGradGuard no_grad;
      rows.store.at("m.weight_scale").copy_(state.scale);
      if (state.zero_point.defined()) rows.store.at("m.weight_zero_point").copy_(state.zero_point);
    }
    EXPECT_TRUE(at::equal(whole.linear.weight(), rows.linear.weight()));
    const at::Tensor x = at::randn({4, 128});
    for (Layer* layer : {&whole, &rows}) layer->linear.forward(x).square().sum().backward();
    const auto gradient = [](Layer& layer, const char* name) { return layer.store.at(name).grad().to(at::kDouble); };
    for (const char* name : {"m.weight_scale", "m.weight_zero_point"})
      if (whole.store.find(name)) {
        const double expected = gradient(rows, name).sum().item<double>() / std::sqrt(8);
        EXPECT_NEAR(gradient(whole, name).item<double>(), expected, 1e-5 * std::abs(expected));
      }
  }
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
