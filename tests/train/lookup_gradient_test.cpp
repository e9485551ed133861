// The embedding's gradient by rows against autograd's, in fp64.
#include "train/lookup_gradient.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "models/tiny_model.h"
#include "quant/policy.h"

namespace satin::train {
namespace {

models::Decoder model(bool tied, const nn::LinearFactory& factory = nn::dense_linear_factory()) {
  models::ModelConfig config = models::tiny_config();
  config.tied_embeddings = tied;
  models::Decoder decoder(config, factory,
                          {.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true});
  models::randomise(decoder);
  return decoder;
}

/// Takes them away.
std::map<std::string, at::Tensor> gradients(models::Decoder& decoder) {
  std::map<std::string, at::Tensor> found;
  for (const nn::Parameter& parameter : decoder.parameters().all())
    found[parameter.name] = std::exchange(at::Tensor(parameter.value).mutable_grad(), at::Tensor());
  return found;
}

TEST(LookupGradient, EqualsAutograd) {
  for (const bool tied : {true, false}) {
    SCOPED_TRACE(testing::Message() << "tied " << tied);
    models::Decoder decoder = model(tied);
    const at::Tensor head = decoder.head().weight(at::kDouble);
    const std::vector<at::Tensor> micro_batches = {at::tensor({3, 7, 3, 30, 0, 3}, at::kLong).view({2, 3}),
                                                   at::tensor({7, 1, 1, 29}, at::kLong).view({2, 2})};
    std::vector<at::Tensor> of_hidden, of_head;
    for (const at::Tensor& tokens : micro_batches) {
      of_hidden.push_back(at::randn({tokens.size(0), tokens.size(1), 16}, at::kDouble));
      of_head.push_back(at::randn(head.sizes(), at::kDouble));
    }
    for (size_t i = 0; i < micro_batches.size(); ++i)
      torch::autograd::backward({decoder.hidden(micro_batches[i]), head}, {of_hidden[i], of_head[i]});
    const auto expected = gradients(decoder);

    const quant::Registry none;
    SharedParameters shared(decoder.parameters().all(), dist::not_shared());
    LookupGradient lookups(decoder, none, dist::not_shared(), shared);
    lookups.begin_step({4});
    ASSERT_TRUE(lookups.by_rows());
    for (size_t i = 0; i < micro_batches.size(); ++i) {
      const bool last = i + 1 == micro_batches.size();
      const at::Tensor hidden =
          decoder.hidden(micro_batches[i], {.input_embeddings = lookups.look_up(micro_batches[i])});
      lookups.add_head(head, of_head[i].clone(), last);
      torch::autograd::backward({hidden}, {of_hidden[i]});
      lookups.collect(last);
    }
    shared.start_rest();
    shared.finish_reduces();
    lookups.finish();
    for (const auto& [name, gradient] : gradients(decoder)) {
      const at::Tensor& wanted = expected.at(name);
      ASSERT_EQ(gradient.defined(), wanted.defined()) << name;
      if (wanted.defined()) EXPECT_LT((gradient - wanted).abs().max().item<double>(), 1e-12) << name;
    }
  }
}

TEST(LookupGradient, LeavesToAutogradWhatIsNotWorthItOrNotItsOwn) {
  const quant::Registry none;
  {
    models::Decoder decoder = model(true);
    SharedParameters shared(decoder.parameters().all(), dist::not_shared());
    LookupGradient lookups(decoder, none, dist::not_shared(), shared);
    lookups.begin_step({31});
    EXPECT_TRUE(lookups.by_rows());
    lookups.begin_step({32});
    EXPECT_FALSE(lookups.by_rows()) << "more tokens than the vocabulary has";
    lookups.begin_step({3, 9, 9, 9});
    EXPECT_FALSE(lookups.by_rows()) << "of all processes together, each filled up to the most";
    lookups.begin_step({3, 7, 7, 7});
    EXPECT_TRUE(lookups.by_rows());
  }
  config::Quantization quantization;
  quantization.default_rule.group_size = 8;
  config::QuantizationRule rule;
  rule.match = "model.embed_tokens";
  rule.method = "lsq";
  rule.bits = 8;
  rule.group_size = 16;
  quantization.overrides = {rule};
  quant::Registry registry;
  models::Decoder decoder = model(true, quant::quant_linear_factory(quant::Policy(quantization), registry));
  ASSERT_TRUE(registry.find("model.embed_tokens"));
  SharedParameters shared(decoder.parameters().all(), dist::not_shared());
  LookupGradient lookups(decoder, registry, dist::not_shared(), shared);
  lookups.begin_step({1});
  EXPECT_FALSE(lookups.by_rows()) << "quantized";
}

}  // namespace
}  // namespace satin::train
