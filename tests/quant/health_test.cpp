// Health against counts by hand.
#include "quant/health.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

namespace satin::quant {
namespace {

bool says(const std::vector<HealthWarning>& warnings, const std::string& text) {
  return warnings.size() == 1 && warnings[0].layer == "a" && warnings[0].text.find(text) != std::string::npos;
}

struct OneLinear {
  nn::ParameterStore store{nn::BuildOptions{.trainable = true}};
  Registry registry;
  std::unique_ptr<QuantLinear> linear;
  explicit OneLinear(const Scheme& scheme) {
    linear = std::make_unique<QuantLinear>(nn::LinearSpec{"m", 8, 1}, scheme, store);
    registry.add(*linear, 8, 1);
  }
  void set(const std::vector<float>& weights, float scale) {
    const at::NoGradGuard no_grad;
    at::Tensor(store.at("m.weight")).copy_(at::tensor(weights).view({1, 8}));
    at::Tensor(store.at("m.weight_scale")).fill_(scale);
  }
};

TEST(Health, CountsByHand) {
  OneLinear model({Method::kLsq, 2, 8});  // levels -2, -1, 0, 1 of scale 1
  HealthMonitor monitor(model.registry);
  model.set({-3, -2, -1, -1, 0, 0.2f, 1, 5}, 1);
  LayerHealth layer = monitor.measure().at(0);
  EXPECT_EQ(layer.num_weights, 8);
  EXPECT_FLOAT_EQ(static_cast<float>(layer.clipped), 2 / 8.f);  // -3 and 5
  EXPECT_EQ(layer.changed, 0);
  EXPECT_EQ(layer.scale_drift, 0);
  EXPECT_EQ(layer.levels, (std::vector<double>{0.25, 0.25, 0.25, 0.25}));

  model.set({-3, -2, -1, 0, 0, 0.2f, 1, 0}, 1.25f);  // levels -2 -2 -1 0 0 0 1 0: two codes are others
  layer = monitor.measure().at(0);
  EXPECT_EQ(layer.changed, 0.25);
  EXPECT_EQ(layer.scale_drift, 0.25);
  EXPECT_EQ(summary({layer, layer}).changed, 0.25);
}

TEST(Health, NarrowColumnsAreClippedWhereTheyEnd) {
  nn::ParameterStore store{nn::BuildOptions{.trainable = true}};
  Registry registry;
  Scheme scheme{Method::kLsq, 3, 8};
  scheme.column_bits = {2, 3};  // levels -2 ... 1 and -4 ... 3
  QuantLinear linear({"m", 16, 1}, scheme, store);
  registry.add(linear, 16, 1);
  {
    const at::NoGradGuard no_grad;
    const at::Tensor half = at::tensor({-5.f, -3.f, -2.f, -1.f, 0.f, 1.f, 2.f, 5.f});
    at::Tensor(store.at("m.weight")).copy_(at::cat({half, half}).view({1, 16}));
    at::Tensor(store.at("m.weight_scale")).fill_(1);
  }
  const LayerHealth layer = HealthMonitor(registry).measure().at(0);
  EXPECT_DOUBLE_EQ(layer.clipped, (4 + 2) / 16.0);
  // -2 -2 -2 -1 0 1 1 1 and -4 -3 -2 -1 0 1 2 3
  EXPECT_EQ(layer.levels,
            (std::vector<double>{1 / 16.0, 1 / 16.0, 4 / 16.0, 2 / 16.0, 2 / 16.0, 4 / 16.0, 1 / 16.0, 1 / 16.0}));
}

TEST(Health, SaysWhatIsWrong) {
  const LayerHealth well{"a", 100, 0.1, 0.01, 0.1, {0.2, 0.3, 0.3, 0.2}};
  EXPECT_TRUE(health_warnings({well}, 0.9).empty());
  LayerHealth layer = well;
  layer.levels = {0, 0.999, 0.001, 0};
  EXPECT_TRUE(says(health_warnings({layer}, 0.1), "99.9 % of the weights are on one level"));
  layer.levels = {0.5, 0.25, 0.25, 0};
  EXPECT_TRUE(says(health_warnings({layer}, 0.1), "level 3 of 4 is used by no weight"));
  layer = well;
  layer.changed = 0.2;
  EXPECT_TRUE(health_warnings({layer}, 0.2).empty()) << "early in training codes may change";
  EXPECT_TRUE(says(health_warnings({layer}, 0.8), "oscillate"));
  layer = well;
  layer.clipped = 0.7;
  EXPECT_TRUE(says(health_warnings({layer}, 0.8), "70.0 % of the weights are clipped"));
  EXPECT_TRUE(health_warnings({}, 1).empty());
}

TEST(Health, GroupsOfZerosHaveNoDrift) {
  for (const Method method : {Method::kMinMaxSymmetric, Method::kBitNet}) {
    OneLinear model({method, 2, 8});
    const at::NoGradGuard no_grad;
    at::Tensor(model.store.at("m.weight")).zero_();
    HealthMonitor monitor(model.registry);
    monitor.measure();
    EXPECT_EQ(monitor.measure().at(0).scale_drift, 0) << to_string(method);
  }
}

TEST(Health, OfEveryMethod) {
  for (const Scheme& scheme :
       {Scheme{Method::kLsqAsymmetric, 2, 8}, Scheme{Method::kSeq, 2, -1}, Scheme{Method::kTernary, 2, 8},
        Scheme{Method::kBinary, 1, 8}, Scheme{Method::kMinMaxSymmetric, 8, 8}, Scheme{Method::kBitNet, 2, -1}}) {
    SCOPED_TRACE(describe(scheme));
    OneLinear model(scheme);
    {
      const at::NoGradGuard no_grad;
      at::Tensor(model.store.at("m.weight")).normal_();
    }
    model.linear->initialise();
    HealthMonitor monitor(model.registry);
    const LayerHealth layer = monitor.measure().at(0);
    EXPECT_EQ(layer.levels.size(), scheme.bits > 4 ? 0u : scheme.has_three_levels() ? 3u : 1u << scheme.bits);
    double sum = 0;
    for (const double share : layer.levels) sum += share;
    if (!layer.levels.empty()) {
      EXPECT_NEAR(sum, 1, 1e-6);
    }
    EXPECT_EQ(monitor.measure().at(0).changed, 0);
  }
}

}  // namespace
}  // namespace satin::quant
