// Learned clips: what a layer holds is what was learned, and the objective falls.
#include "ptq/clipping.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "quant/codes.h"

namespace satin::ptq {
namespace {

at::Tensor error_of(const LayerObjective& objective, const at::Tensor& error) {
  return LayerObjective::value(error, objective.slope(error));
}

struct Layer {
  nn::ParameterStore store;
  quant::QuantLinear linear;
  Layer(const quant::Scheme& scheme, const at::Tensor& weight)
      : store({.trainable = true}), linear({"layer", weight.size(1), weight.size(0)}, scheme, store) {
    const at::NoGradGuard no_grad;
    at::Tensor(linear.master_weight()).copy_(weight);
    linear.initialise();
  }
};

TEST(Clipping, LowersTheObjectiveAndIsHeldAsLearned) {
  at::manual_seed(3);
  const at::Tensor weight = at::randn({16, 64}) * 0.1, x = at::randn({200, 64}) * at::randn({64}).exp();
  const at::Tensor g = at::randn({200, 16});
  const at::Tensor input = at::mm(x.t(), x) / 200, gradient = at::mm(g.t(), g) / 200;
  for (const quant::Method method : {quant::Method::kLwc, quant::Method::kLsqAsymmetric})
    for (const quant::Init init : {quant::Init::kData, quant::Init::kSearch}) {
      Layer layer({.method = method, .bits = 2, .group_size = 32, .init = init}, weight);
      const quant::Scheme scheme = layer.linear.scheme();
      const Clips start = initial_clips(weight, scheme);
      const at::Tensor first = clipped_weight(weight, start, scheme, at::kFloat).detach();
      const auto objective = LayerObjective::balanced(input, gradient, first - weight, 1);
      const LearnedClips learned = learn_clips(weight, scheme, objective, start, 150, 0.02);
      EXPECT_NEAR(learned.before, error_of(objective, first - weight).item<double>(), 1e-4 * learned.before);
      EXPECT_LT(learned.after, (init == quant::Init::kData ? 0.9 : 0.995) * learned.before);
      const at::Tensor wanted = clipped_weight(weight, learned.clips, scheme, at::kFloat);
      EXPECT_NEAR(error_of(objective, wanted - weight).item<double>(), learned.after, 1e-4 * learned.after);
      hold(layer.linear, learned.clips);
      EXPECT_TRUE(at::equal(layer.linear.weight(at::kFloat), wanted));
      EXPECT_TRUE(at::equal(quant::dequantize(quant::quantize_weight(layer.linear)).to(at::kFloat), wanted));
    }
}

TEST(Clipping, LevelsKeepEveryCode) {
  at::manual_seed(4);
  const at::Tensor weight = at::randn({16, 64}) * 0.1;
  using enum quant::Method;
  for (const quant::Method method : {kLsqAsymmetric, kLsq, kSeq, kTernary, kBinary})
    for (const int bits : {2, 8}) {
      if (bits == 8 && method != kLsq && method != kLsqAsymmetric) continue;
      Layer layer({.method = method, .bits = method == kBinary ? 1 : bits, .group_size = 32}, weight);
      const auto before = quant::quantize_weight(layer.linear);
      move_to_levels(layer.linear);
      const auto after = quant::quantize_weight(layer.linear);
      EXPECT_TRUE(at::equal(before.codes, after.codes)) << quant::describe(layer.linear.scheme());
      EXPECT_TRUE(at::equal(before.scale, after.scale));
      EXPECT_TRUE(at::equal(before.zero_point, after.zero_point));
      EXPECT_FALSE(at::equal(layer.linear.master_weight(), weight));
    }
}

}  // namespace
}  // namespace satin::ptq
