#include "models/decoder.h"

#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "models/tiny_model.h"
#include "support/tensor_archive.h"

namespace satin::models {
namespace {

const nn::BuildOptions kDouble{.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true};

Decoder tiny(const nn::BuildOptions& options, const ModelConfig& config = tiny_config()) {
  Decoder decoder(config, nn::dense_linear_factory(), options);
  randomise(decoder);
  return decoder;
}

std::vector<std::string> names(const Decoder& decoder) {
  std::vector<std::string> all;
  for (const nn::Parameter& parameter : decoder.parameters().all()) all.push_back(parameter.name);
  return all;
}

TEST(Decoder, TiesTheHeadToTheEmbedding) {
  ModelConfig config = tiny_config();
  config.tied_embeddings = true;
  Decoder tied = tiny(kDouble, config), untied = tiny(kDouble);
  EXPECT_EQ(names(untied).back(), "lm_head.weight");
  EXPECT_EQ(names(untied).size(), names(tied).size() + 1);
  EXPECT_TRUE(tied.head().weight().is_same(tied.parameters().at("model.embed_tokens.weight")));
}

TEST(Decoder, IncrementalLogitsEqualTheWhole) {
  const at::NoGradGuard no_grad;
  Decoder decoder = tiny({});
  const at::Tensor tokens = random_tokens(3, 23);
  const at::Tensor whole = decoder.logits(decoder.hidden(tokens));
  KvCache cache;
  for (const int64_t step : {5, 1, 9, 1, 1, 1, 5}) {
    const int64_t from = cache.length;
    const at::Tensor part = decoder.logits(decoder.hidden(tokens.narrow(1, from, step), {.cache = &cache}));
    EXPECT_LT(test::max_difference(part, whole.narrow(1, from, step)), 1e-5) << "from " << from;
  }
  EXPECT_EQ(cache.length, 23);
}

TEST(Decoder, StoredKeysAndValuesAreTheSameTokenByToken) {
  const at::NoGradGuard no_grad;
  Decoder decoder = tiny({});
  const at::Tensor tokens = random_tokens(3, 12), exact = decoder.logits(decoder.hidden(tokens));
  double change[2];
  for (const auto format : {ops::ActivationFormat::kInt8, ops::ActivationFormat::kInt4}) {
    decoder.store_keys_and_values_as(format);
    const at::Tensor whole = decoder.logits(decoder.hidden(tokens));
    KvCache cache;
    for (const int64_t step : {5, 1, 1, 5}) {
      const int64_t from = cache.length;
      const at::Tensor part = decoder.logits(decoder.hidden(tokens.narrow(1, from, step), {.cache = &cache}));
      EXPECT_LT(test::max_difference(part, whole.narrow(1, from, step)), 1e-5) << "from " << from;
    }
    const int64_t head_dim = decoder.config().head_dim;  // two to a byte as int4
    EXPECT_EQ(cache.keys[0].rows.scalar_type(), at::kChar);
    EXPECT_EQ(cache.keys[0].rows.size(3), format == ops::ActivationFormat::kInt8 ? head_dim : head_dim / 2);
    const StepState state = decoder.start_steps({&cache}, 30);
    const int64_t token_bytes = state.keys[0].rows.size(3) + 4;
    EXPECT_EQ(state.cache_bytes(), 2 * decoder.config().num_layers * decoder.config().num_kv_heads * 30 * token_bytes);
    decoder.store_keys_and_values_as(std::nullopt);
    EXPECT_THROW(decoder.hidden(tokens, {.cache = &cache}), InternalError) << "one cache, two formats";
    decoder.store_keys_and_values_as(format);
    change[format == ops::ActivationFormat::kInt4] = ((whole - exact).norm() / exact.norm()).item<double>();
  }
  EXPECT_GT(change[0], 1e-5);
  EXPECT_LT(change[0], 0.02);
  EXPECT_GT(change[1], 3 * change[0]);
}

TEST(Decoder, PackedDocumentsEqualSeparateOnes) {
  const at::NoGradGuard no_grad;
  Decoder decoder = tiny({});
  const at::Tensor tokens = random_tokens(2, 16);
  const std::vector<std::vector<int64_t>> lengths = {{5, 1, 10}, {16}};
  std::vector<at::Tensor> ids;
  for (const auto& row : lengths) {
    std::vector<at::Tensor> pieces;
    for (const int64_t length : row)
      pieces.push_back(at::full({length}, static_cast<int64_t>(pieces.size()) * 7, at::kLong));
    ids.push_back(at::cat(pieces));
  }
  const at::Tensor packed = decoder.hidden(tokens, {.document_ids = at::stack(ids)});
  for (size_t b = 0; b < lengths.size(); ++b) {
    int64_t begin = 0;
    for (const int64_t length : lengths[b]) {
      const at::Tensor alone = decoder.hidden(tokens.narrow(0, b, 1).narrow(1, begin, length));
      EXPECT_LT(test::max_difference(packed.narrow(0, b, 1).narrow(1, begin, length), alone), 1e-5);
      begin += length;
    }
  }
}

TEST(Decoder, PositionsAndMaskSayWhatTheOrderSays) {
  const at::NoGradGuard no_grad;
  Decoder decoder = tiny(kDouble);
  const at::Tensor tokens = random_tokens(2, 9), order = at::randperm(9, at::kLong);
  const at::Tensor documents = (at::arange(9) >= 4).to(at::kLong).repeat({2, 1});
  for (const at::Tensor& ids : {at::Tensor(), documents}) {
    const at::Tensor want = decoder.hidden(tokens, {.document_ids = ids}).index_select(1, order);
    // In another order, each still at its position and seeing what came before it.
    ForwardOptions options{.positions = order, .mask = (order.unsqueeze(1) >= order.unsqueeze(0)).view({1, 1, 9, 9})};
    if (ids.defined()) options.document_ids = ids.index_select(1, order);
    const at::Tensor got = decoder.hidden(tokens.index_select(1, order), options);
    EXPECT_LT(test::max_difference(got, want), 1e-12);
    options.mask = options.mask.repeat({2, 1, 1, 1});  // one a sequence
    EXPECT_TRUE(at::equal(decoder.hidden(tokens.index_select(1, order), options), got));
  }
  KvCache cache;
  EXPECT_THROW(decoder.hidden(tokens, {.cache = &cache, .positions = order}), InternalError);
  EXPECT_THROW(decoder.hidden(tokens, {.positions = order.narrow(0, 0, 8)}), InternalError);
  EXPECT_THROW(decoder.hidden(tokens, {.mask = at::ones({1, 1, 8, 8}, at::kBool)}), InternalError);
}

TEST(Decoder, GradientsEqualFiniteDifferences) {
  for (const bool tied : {false, true}) {
    ModelConfig config = tiny_config();
    config.tied_embeddings = tied;
    Decoder decoder = tiny(kDouble, config);
    const at::Tensor tokens = random_tokens(2, 7);
    const at::Tensor probe = at::randn({2, 7, config.vocab_size}, at::kDouble);
    const auto value = [&] { return (decoder.logits(decoder.hidden(tokens)).log_softmax(-1) * probe).sum(); };
    value().backward();
    const at::NoGradGuard no_grad;
    for (const nn::Parameter& parameter : decoder.parameters().all()) {
      at::Tensor handle = parameter.value;
      const at::Tensor direction = at::randn_like(handle);
      const double step = 1e-6;
      handle.add_(direction, step);
      const double above = value().item<double>();
      handle.add_(direction, -2 * step);
      const double below = value().item<double>();
      handle.add_(direction, step);
      const double expected = (above - below) / (2 * step);
      EXPECT_NEAR((handle.grad() * direction).sum().item<double>(), expected, 1e-6 * (1 + std::abs(expected)))
          << parameter.name;
    }
  }
}

TEST(Decoder, TakesEmbeddingsAndTapsTheResidualStream) {
  Decoder decoder = tiny(kDouble);
  const at::Tensor tokens = random_tokens(2, 5);
  std::vector<at::Tensor> taps;
  const at::Tensor hidden = decoder.hidden(tokens, {.taps = &taps});
  ASSERT_EQ(taps.size(), 2u);
  const at::Tensor embeddings = taps[0].detach().requires_grad_(true);
  EXPECT_TRUE(at::equal(decoder.embed(tokens), embeddings));
  const at::Tensor again = decoder.hidden({}, {.input_embeddings = embeddings});
  EXPECT_TRUE(at::equal(hidden, again));
  EXPECT_TRUE(torch::autograd::grad({again.sum()}, {embeddings})[0].isfinite().all().item<bool>());
}

TEST(Decoder, TellsTheStreamAfterEachLayer) {
  const at::NoGradGuard no_grad;
  Decoder decoder = tiny(kDouble);
  const at::Tensor tokens = random_tokens(2, 5);
  std::vector<at::Tensor> inputs, outputs;
  const at::Tensor hidden =
      decoder.hidden(tokens, {.taps = &inputs, .after_layer = [&](int64_t layer, const at::Tensor& x) {
                                EXPECT_EQ(layer, static_cast<int64_t>(outputs.size()));
                                outputs.push_back(x);
                              }});
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_TRUE(at::equal(outputs[0], inputs[1]));
  const at::Tensor normed = outputs[1] * (outputs[1].square().mean(-1, true) + 1e-5).rsqrt();
  EXPECT_LT(test::max_difference(hidden, normed * decoder.parameters().at("model.norm.weight")), 1e-12);
}

TEST(Decoder, AddsAnOffsetToALayersInput) {
  Decoder decoder = tiny(kDouble);
  const at::Tensor tokens = random_tokens(2, 5), offset = at::randn({2, 5, 16}, at::kDouble);
  std::vector<at::Tensor> before, after;
  decoder.hidden(tokens, {.taps = &before});
  const at::Tensor at_0 = decoder.hidden(tokens, {.offset = offset});
  EXPECT_TRUE(at::equal(at_0, decoder.hidden({}, {.input_embeddings = before[0] + offset})));
  decoder.hidden(tokens, {.taps = &after, .offset = offset, .offset_layer = 1});
  EXPECT_TRUE(at::equal(after[0], before[0]));
  EXPECT_TRUE(at::equal(after[1], before[1] + offset));
  EXPECT_THROW(decoder.hidden(tokens, {.offset = offset, .offset_layer = 2}), InternalError);
}

TEST(Decoder, KeepsNarrowComputeCloseAndLogitsWide) {
  const at::NoGradGuard no_grad;
  Decoder wide = tiny({}), narrow = tiny({.compute_dtype = at::kBFloat16});
  const at::Tensor tokens = random_tokens(2, 9);
  const at::Tensor hidden = narrow.hidden(tokens), logits = narrow.logits(hidden);
  EXPECT_EQ(hidden.scalar_type(), at::kBFloat16);
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  const at::Tensor expected = wide.logits(wide.hidden(tokens));
  EXPECT_LT(((logits - expected).norm() / expected.norm()).item<double>(), 0.03);
}

TEST(Decoder, NamesATokenOutsideTheVocabulary) {
  Decoder decoder = tiny({});
  for (const int64_t bad : {int64_t{31}, int64_t{-1}}) {
    at::Tensor tokens = random_tokens(1, 4);
    tokens[0][2] = bad;
    try {
      decoder.hidden(tokens);
      FAIL();
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("token id " + std::to_string(bad)), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("31"), std::string::npos) << e.what();
    }
  }
  EXPECT_THROW(decoder.hidden(at::zeros({1, 0}, at::kLong)), InternalError);
}

TEST(RandomInit, IsAFunctionOfSeedAndName) {
  ModelConfig config = tiny_config();
  config.vocab_size = 4000;
  config.initializer_range = 0.05;
  Decoder a(config, nn::dense_linear_factory(), {}), b(config, nn::dense_linear_factory(), kDouble);
  config.num_layers = 1;  // another set of parameters does not change a parameter's values
  Decoder c(config, nn::dense_linear_factory(), {});
  at::rand({3});  // nor does the global generator
  initialise_randomly(a, 7);
  initialise_randomly(b, 7);
  initialise_randomly(c, 7);
  for (const nn::Parameter& parameter : a.parameters().all()) {
    EXPECT_TRUE(at::equal(parameter.value.to(at::kDouble), b.parameters().at(parameter.name))) << parameter.name;
    const nn::Parameter* same = c.parameters().find(parameter.name);
    EXPECT_TRUE(!same || at::equal(parameter.value, same->value)) << parameter.name;
    EXPECT_TRUE(parameter.role != nn::Role::kNorm || parameter.value.eq(1).all().item<bool>());
    EXPECT_TRUE(parameter.role != nn::Role::kBias || parameter.value.eq(0).all().item<bool>());
  }
  const auto weight = [](Decoder& d, const char* name) { return d.parameters().at(name); };
  const at::Tensor embedding = weight(a, "model.embed_tokens.weight");
  EXPECT_NEAR(embedding.std().item<double>(), 0.05, 0.001);
  EXPECT_NEAR(embedding.mean().item<double>(), 0, 0.001);
  EXPECT_FALSE(
      at::equal(weight(a, "model.layers.0.mlp.up_proj.weight"), weight(a, "model.layers.1.mlp.up_proj.weight")));
  initialise_randomly(c, 8);
  EXPECT_FALSE(at::equal(embedding, weight(c, "model.embed_tokens.weight")));
}

}  // namespace
}  // namespace satin::models
