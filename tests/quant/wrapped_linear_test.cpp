// What surrounds a quantized product, against the papers' formulas written in plain tensor operations.
#include "quant/wrapped_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "quant/low_bit_matmul.h"
#include "quant/registry.h"

namespace satin::quant {
namespace {

struct OneLayer {
  nn::ParameterStore store{{at::kCPU, at::kFloat, at::kFloat, true}};
  Registry registry;
  std::unique_ptr<nn::Linear> linear;

  OneLayer(const std::string& method, double bits, const std::string& activations, int64_t group = -1) {
    config::Quantization quantization;
    quantization.default_rule.method = method;
    quantization.default_rule.bits = bits;
    quantization.default_rule.group_size = group;
    quantization.default_rule.activations = activations;
    linear = quant_linear_factory(Policy(quantization), registry)({"m", 64, 24, true}, store);
    at::manual_seed(9);
    const at::NoGradGuard no_grad;
    store.at("m.weight").copy_(at::randn({24, 64}) * 0.05);
    store.at("m.bias").copy_(at::randn({24}));
    initialise_from_weights(registry);
  }
  at::Tensor weight() { return linear->weight().detach(); }
};

at::Tensor int8(const at::Tensor& x) {
  const at::Tensor scale = x.abs().amax(-1, true) / 127;
  return at::round(x / scale).clamp(-127, 127) * scale;
}

TEST(WrappedLinear, MultipliesCodesAsFakeQuantizedNumbers) {
  struct Case {
    const char* method;
    double bits;
    int64_t group;
  };
  for (const Case& c : {Case{"lsq", 4, -1},
                        {"lsq", 3, 32},
                        {"lsq_asymmetric", 2, 32},
                        {"seq", 2, -1},
                        {"ternary", 2, 0},
                        {"bitnet", 2, 0},
                        {"binary", 1, 64},
                        {"minmax_asymmetric", 4, 64}}) {
    SCOPED_TRACE(c.method);
    OneLayer model(c.method, c.bits, "int8", c.group);
    QuantLinear& inner = *model.registry.modules()[0].linear;
    const ops::PackedWeight packed = pack_for_product(inner.master_weight().detach(), inner.state(), inner.scheme());
    const at::Tensor values = inner.weight(at::kFloat).detach(), x = at::randn({5, 3, 64}), up = at::randn({5, 3, 24});
    std::vector<at::Tensor> ours, theirs;
    for (const bool by_codes : {true, false}) {
      const at::Tensor held = values.clone().requires_grad_(), in = x.clone().requires_grad_();
      inner.hold(held, by_codes ? std::optional(packed) : std::nullopt);
      EXPECT_EQ(inner.multiplies_int8(), by_codes);
      const at::Tensor y = model.linear->forward(in);
      y.backward(up);
      auto& found = by_codes ? ours : theirs;
      found = {y.detach(), in.grad(), held.grad()};
    }
    // The product takes the weight before it is rounded to dequant_dtype, bfloat16: by 2^-9 at most.
    EXPECT_LT(((ours[0] - theirs[0]).norm() / theirs[0].norm()).item<double>(), 0.002);
    EXPECT_TRUE(at::allclose(ours[1], theirs[1], 1e-5, 1e-5));
    EXPECT_TRUE(at::allclose(ours[2], theirs[2], 1e-5, 1e-5));
    inner.hold({});
    EXPECT_FALSE(inner.multiplies_int8());
  }
}

TEST(LowBitMatmul, IsChosenWhereItIsFaster) {
  Scheme scheme{Method::kLsq, 4, 128};
  scheme.activations = Activations::kInt8;
  const auto reason = [&](at::ScalarType dtype, int capability) {
    return reason_against_low_bit(scheme, 512, 1024, dtype, capability);
  };
  EXPECT_EQ(reason(at::kBFloat16, 90), "");
  EXPECT_NE(reason(at::kBFloat16, 0), "") << "the CPU keeps fake quantization";
  EXPECT_NE(reason(at::kFloat, 90), "");
  scheme.group_size = 64;
  EXPECT_NE(reason(at::kBFloat16, 90), "");
  scheme.group_size = -1;
  EXPECT_EQ(reason(at::kBFloat16, 90), "");
  scheme.bits = 8;
  EXPECT_NE(reason(at::kBFloat16, 90), "");
  scheme.bits = 2;
  scheme.activations = Activations::kFloat8;
  EXPECT_NE(reason(at::kBFloat16, 90), "");
}

TEST(WrappedLinear, QuantizesItsInputs) {
  OneLayer model("lsq", 4, "int8");
  ASSERT_TRUE(model.registry.modules()[0].wrapper);
  const at::Tensor x = at::randn({5, 64}).requires_grad_(true);
  const at::Tensor y = model.linear->forward(x), bias = model.store.at("m.bias");
  EXPECT_TRUE(at::allclose(y, int8(x).matmul(model.weight().t()) + bias, 1e-5, 1e-5));
  y.sum().backward();
  EXPECT_TRUE(at::allclose(x.grad(), at::ones({5, 24}).matmul(model.weight()), 1e-4, 1e-5)) << "straight through";

  OneLayer fp8("lsq", 4, "float8");
  const at::Tensor scale = x.abs().amax(-1, true) / 448;
  const at::Tensor rounded = (x / scale).to(at::kFloat8_e4m3fn).to(at::kFloat) * scale;
  EXPECT_TRUE(at::allclose(fp8.linear->forward(x), rounded.matmul(fp8.weight().t()) + bias, 1e-5, 1e-5));
}

TEST(WrappedLinear, StaticScalesStartFromWhatWasSeen) {
  OneLayer model("lsq", 4, "int8_static");
  const at::Tensor x = at::randn({50, 64});
  {
    const at::NoGradGuard no_grad;
    model.registry.enable(false);
    model.registry.modules()[0].linear->observe(true);
    model.linear->forward(x);
    model.registry.modules()[0].linear->observe(false);
    model.registry.enable(true);
    initialise_from_weights(model.registry);
  }
  const at::Tensor scale = model.store.at("m.input_scale");
  EXPECT_FLOAT_EQ(scale.item<float>(), x.abs().max().item<float>() / 127);
  const at::Tensor rounded = at::round(x / scale.detach()).clamp(-127, 127) * scale.detach();
  const at::Tensor y = model.linear->forward(x);
  EXPECT_TRUE(at::allclose(y, rounded.matmul(model.weight().t()) + model.store.at("m.bias"), 1e-5, 1e-5));
  y.square().sum().backward();
  EXPECT_NE(scale.grad().item<float>(), 0);
}

// y = LN(((x h) sign(W)^T) g) + b, Xu et al. 2024.
TEST(WrappedLinear, OneBit) {
  OneLayer model("onebit", 1, "none");
  const at::Tensor x = at::randn({5, 64}), w = model.store.at("m.weight").detach();
  const at::Tensor h = model.store.at("m.input_vector").detach();
  const at::Tensor g = model.store.at("m.weight_scale").detach().view({24}).to(at::kBFloat16).to(at::kFloat);
  const at::Tensor sign = at::where(w < 0, -1.0f, 1.0f);
  const at::Tensor z = (x * h).matmul(sign.t()) * g;
  const at::Tensor mean = z.mean(-1, true);
  const at::Tensor expected =
      (z - mean) / ((z - mean).square().mean(-1, true) + 1e-5).sqrt() + model.store.at("m.bias");
  EXPECT_TRUE(at::allclose(model.linear->forward(x), expected, 1e-4, 1e-4));
  model.linear->forward(x).square().mul(at::randn({5, 24})).sum().backward();
  for (const nn::Parameter& parameter : model.store.all())
    EXPECT_GT(parameter.value.grad().abs().sum().item<float>(), 0) << parameter.name;
  model.registry.enable(false);
  EXPECT_TRUE(at::allclose(model.linear->forward(x), at::linear(x, w, model.store.at("m.bias")), 1e-5, 1e-6));
}

TEST(RankOne, IsTheLeadingSingularPair) {
  at::manual_seed(10);
  const at::Tensor w = at::randn({24, 64}, at::kDouble) * at::rand({24, 1}, at::kDouble) * at::rand({64}, at::kDouble);
  const RankOne found = rank_one(w);
  const auto [u, s, v] = at::linalg_svd(w.abs(), /*full_matrices=*/false);
  const at::Tensor best = at::outer(u.select(1, 0), v.select(0, 0)) * s[0];
  EXPECT_LT((at::outer(found.rows, found.columns) - best).norm().item<double>(), 1e-6 * best.norm().item<double>());
  EXPECT_NEAR(found.columns.mean().item<double>(), 1, 1e-12);
  EXPECT_TRUE((found.rows > 0).all().item<bool>());
}

}  // namespace
}  // namespace satin::quant
