// A decoder whose embedding is quantized: rows are looked up in the quantized table, and a tied head multiplies with
// it.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "models/tiny_model.h"
#include "quant/held_weights.h"

namespace satin::quant {
namespace {

struct EmbeddingModel {
  Registry registry;
  std::unique_ptr<models::Decoder> decoder;

  explicit EmbeddingModel(bool tied) {
    config::Quantization quantization;
    quantization.default_rule.method = "none";
    config::QuantizationRule rule;
    rule.match = "model.embed_tokens";
    rule.method = "lsq";
    rule.bits = 4;
    rule.group_size = 8;
    quantization.overrides = {rule};
    models::ModelConfig config = models::tiny_config();
    config.tied_embeddings = tied;
    const nn::BuildOptions options{.trainable = true};
    decoder = std::make_unique<models::Decoder>(config, quant_linear_factory(Policy(quantization), registry), options);
    models::randomise(*decoder);
    initialise_from_weights(registry);
  }
  const at::Tensor table() { return registry.modules().at(0).linear->weight().detach(); }
};

TEST(QuantizedEmbedding, RowsAndTiedHeadUseTheQuantizedTable) {
  for (bool tied : {true, false}) {
    SCOPED_TRACE(tied);
    EmbeddingModel model(tied);
    ASSERT_EQ(model.registry.modules().size(), 1u);
    EXPECT_EQ(model.registry.modules()[0].name, "model.embed_tokens");
    EXPECT_EQ(model.decoder->parameters().find("model.embed_tokens.weight")->role, nn::Role::kEmbedding);
    const at::Tensor tokens = models::random_tokens(2, 9), table = model.table();
    EXPECT_FALSE(at::equal(table, model.decoder->parameters().at("model.embed_tokens.weight")));
    const at::Tensor hidden = model.decoder->hidden(tokens);
    EXPECT_TRUE(at::equal(hidden, model.decoder->hidden({}, {.input_embeddings = at::embedding(table, tokens)})));
    EXPECT_EQ(at::equal(model.decoder->head().weight(), table), tied);
  }
}

TEST(QuantizedEmbedding, HasNoInputsToQuantize) {
  for (const char* module : {"model.embed_tokens", "lm_head"})
    for (const bool activations : {true, false}) {
      config::Quantization quantization;
      config::QuantizationRule rule;
      rule.match = module;
      if (activations) {
        rule.activations = "int8";
      } else {
        rule.method = "onebit";
        rule.bits = 1;
        rule.group_size = -1;
      }
      quantization.overrides = {rule};
      Registry registry;
      nn::ParameterStore store({});
      const nn::LinearFactory factory = quant_linear_factory(Policy(quantization), registry);
      const nn::Role role = std::string(module) == "lm_head" ? nn::Role::kWeight : nn::Role::kEmbedding;
      EXPECT_THROW(factory({module, 64, 32, false, role}, store), UserError) << module;
    }
}

TEST(QuantizedEmbedding, HeldOnceItTakesTheGradientsOfBothUses) {
  EmbeddingModel model(true);
  const at::Tensor tokens = models::random_tokens(2, 9);
  const auto loss = [&] { return model.decoder->logits(model.decoder->hidden(tokens)).square().mean(); };
  const auto gradients = [&] {
    std::vector<at::Tensor> all;
    for (const char* name : {"model.embed_tokens.weight", "model.embed_tokens.weight_scale"}) {
      const at::Tensor parameter = model.decoder->parameters().at(name);
      all.push_back(parameter.grad().clone());
      parameter.mutable_grad() = at::Tensor();
    }
    return all;
  };
  loss().backward();
  const auto expected = gradients();
  HeldWeights held(model.registry, at::kFloat, true);
  loss().backward();
  held.collect();
  held.fold();
  const auto found = gradients();
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_LT((found[i] - expected[i]).norm().item<float>(), 1e-5 * expected[i].norm().item<float>()) << i;
}

}  // namespace
}  // namespace satin::quant
