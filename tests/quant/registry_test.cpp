#include "quant/registry.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::quant {
namespace {

config::QuantizationRule rule(const std::string& match, const std::string& method) {
  config::QuantizationRule result;
  result.match = match;
  result.method = method;
  return result;
}

/// Two linears, a head, an embedding and a norm, as a model asks for them.
struct RegisteredModel {
  nn::ParameterStore store{nn::BuildOptions{}};
  Registry registry;
  std::vector<std::unique_ptr<nn::Linear>> linears;
  explicit RegisteredModel(const config::Quantization& config) {
    const nn::LinearFactory factory = quant_linear_factory(Policy(config), registry);
    store.add("model.embed_tokens.weight", {10, 64}, nn::Role::kEmbedding);
    linears.push_back(factory({"model.layers.0.self_attn.q_proj", 64, 32, true}, store));
    linears.push_back(factory({"model.layers.0.mlp.up_proj", 64, 128}, store));
    store.add("model.norm.weight", {64}, nn::Role::kNorm);
    linears.push_back(factory({"lm_head", 64, 10}, store));
    for (const nn::Parameter& parameter : store.all()) parameter.value.normal_();
  }
};

TEST(Registry, ListsWhatWasBuiltAndWhy) {
  config::Quantization config;
  config.overrides = {rule("*.mlp.*", "none")};
  RegisteredModel model(config);
  ASSERT_EQ(model.registry.modules().size(), 1u);
  EXPECT_EQ(model.registry.modules()[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(model.registry.modules()[0].linear, model.linears[0].get());
  EXPECT_NE(model.registry.find("model.layers.0.self_attn.q_proj"), nullptr);
  EXPECT_EQ(model.registry.find("lm_head"), nullptr);

  const std::vector<TableRow> table = quantization_table(model.registry, model.store);
  std::vector<std::string> names;
  for (const TableRow& row : table) {
    names.push_back(row.name);
    EXPECT_EQ(row.method == "none", !row.reason.empty()) << row.name;
  }
  EXPECT_EQ(names, (std::vector<std::string>{"model.embed_tokens.weight", "model.layers.0.self_attn.q_proj",
                                             "model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.up_proj",
                                             "model.norm.weight", "lm_head"}));
  EXPECT_EQ(table[1].method, "lsq_asymmetric");
  EXPECT_EQ(table[1].group_size, 64);
  EXPECT_DOUBLE_EQ(table[1].effective_bits, 2.28125);
  EXPECT_EQ(table[1].shape, (std::vector<int64_t>{32, 64}));
  EXPECT_NE(table[3].reason.find("*.mlp.*"), std::string::npos);
  EXPECT_EQ(table[3].effective_bits, 16);
}

TEST(Registry, InitialisesFromTheWeights) {
  RegisteredModel model(config::Quantization{});
  initialise_from_weights(model.registry);
  for (const QuantizedModule& module : model.registry.modules()) {
    const at::Tensor w = module.linear->master_weight(), error = module.linear->weight() - w;
    EXPECT_LT((error.square().sum() / w.square().sum()).item<double>(), 0.14) << "2 bits with clip search: .126";
  }
}

TEST(Registry, RefusesWhatCannotBe) {
  config::Quantization config;
  config.overrides = {rule("model.layers.*.mpl.*", "lsq")};
  RegisteredModel model(config);
  EXPECT_THROW(model.registry.check_all_rules_match(), UserError);
  EXPECT_THROW(initialise_from_weights(model.registry), UserError);
  config = {};
  config.default_rule.group_size = 48;
  EXPECT_THROW(RegisteredModel{config}, UserError);
}

}  // namespace
}  // namespace satin::quant
