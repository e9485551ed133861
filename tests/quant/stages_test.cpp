#include "quant/stages.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace satin::quant {
namespace {

TEST(Stages, OfEachStep) {
  config::Quantization quantization;
  EXPECT_EQ(stage_at(quantization, 0, 100), Stage{});
  quantization.fake_quant_after_n_steps = 10;
  quantization.hardening = {{8, 0.2}, {4, 0.5}};
  EXPECT_EQ(stage_at(quantization, 9, 100), (Stage{false, 8}));
  EXPECT_EQ(stage_at(quantization, 10, 100), (Stage{true, 8}));
  EXPECT_EQ(stage_at(quantization, 19, 100), (Stage{true, 8}));
  EXPECT_EQ(stage_at(quantization, 20, 100), (Stage{true, 4}));
  EXPECT_EQ(stage_at(quantization, 50, 100), (Stage{true, 0}));
  EXPECT_EQ(stage_at(quantization, 100, 100), (Stage{true, 0}));
}

TEST(Stages, LayersKeepAtLeastTheirOwnBits) {
  config::Quantization quantization;
  quantization.default_rule.method = "lsq";
  config::QuantizationRule six = quantization.default_rule, seq = quantization.default_rule;
  six.match = "six";
  six.bits = 6;
  seq.match = "seq";
  seq.method = "seq";
  quantization.overrides = {six, seq};
  Registry registry;
  nn::ParameterStore store({});
  const nn::LinearFactory factory = quant_linear_factory(Policy(quantization), registry);
  std::vector<std::unique_ptr<nn::Linear>> linears;
  for (const char* name : {"two", "six", "seq"}) linears.push_back(factory({name, 64, 8, false}, store));
  const auto bits = [&] {
    std::vector<int> all;
    for (const QuantizedModule& module : registry.modules()) all.push_back(module.linear->scheme().bits);
    return all;
  };
  enter(registry, {true, 8}, false);
  EXPECT_EQ(bits(), (std::vector<int>{8, 8, 2}));
  enter(registry, {true, 4}, true);
  EXPECT_EQ(bits(), (std::vector<int>{4, 6, 2}));
  enter(registry, {false, 0}, true);
  EXPECT_EQ(bits(), (std::vector<int>{2, 6, 2}));
  EXPECT_FALSE(registry.modules()[0].linear->enabled());
  EXPECT_EQ(registry.modules()[0].scheme.bits, 2);
}

}  // namespace
}  // namespace satin::quant
