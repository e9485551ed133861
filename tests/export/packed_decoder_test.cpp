// Decoders that multiply with codes, beside dense ones of the same values.
#include <ATen/ATen.h>

#include "export/packed_format.h"
#include "export/shipped_model.h"
#include "quant/packed_linear.h"

namespace satin::exporting {
namespace {

class PackedDecoder : public PackedFormat {
 protected:
  /// A dense decoder of scale * level, which the packed kernels multiply with: not rounded as the shipped values are.
  std::unique_ptr<models::Decoder> exact_decoder(const ShippedModel& model) {
    auto decoder = build_decoder(model, {});
    const at::NoGradGuard no_grad;
    for (const auto& tensor : model.tensors) {
      if (!tensor.scheme) continue;
      const quant::QuantizedWeight weight = tensor.quantized();
      const at::Tensor grouped =
          quant::levels(weight).view({weight.codes.size(0), weight.scale.size(1), -1}).to(at::kDouble);
      decoder->parameters()
          .at(tensor.name)
          .copy_((grouped * weight.scale.unsqueeze(2).to(at::kDouble)).view(weight.codes.sizes()));
    }
    return decoder;
  }

  static at::Tensor logits(models::Decoder& decoder, const at::Tensor& tokens) {
    const at::NoGradGuard no_grad;
    return decoder.logits(decoder.hidden(tokens));
  }
  static double relative_error(const at::Tensor& found, const at::Tensor& expected) {
    return ((found - expected).norm() / expected.norm()).item<double>();
  }
  static bool has_weight(models::Decoder& decoder, const std::string& name) {
    return decoder.parameters().find(name) != nullptr;
  }

  const at::Tensor few_tokens_ = at::arange(24).view({2, 12}) * 3, many_tokens_ = at::arange(96).view({2, 48});
  const std::string up_ = "model.layers.1.mlp.up_proj.weight";
};

TEST_F(PackedDecoder, EqualsTheDenseOneOfItsWeights) {
  const std::vector<quant::Scheme> schemes = {
      make_scheme(Method::kBinary, 1, 64),          make_scheme(Method::kTernary, 2, 32),
      make_scheme(Method::kBitNet, 2, 0),           make_scheme(Method::kSeq, 2, -1),
      make_scheme(Method::kLsqAsymmetric, 2, 64),   make_scheme(Method::kLsq, 3, 32, quant::Storage::kFloat16),
      make_scheme(Method::kLsqAsymmetric, 4, -1),   make_scheme(Method::kMinMaxSymmetric, 8, 64),
      make_scheme(Method::kMinMaxAsymmetric, 8, 32)};
  for (const quant::Scheme& scheme : schemes) {
    SCOPED_TRACE(quant::describe(scheme));
    const ShippedModel model = make_model(scheme);
    const auto packed = build_decoder(model, {}, WeightForm::kPacked);
    EXPECT_FALSE(has_weight(*packed, up_));
    EXPECT_LT(relative_error(logits(*packed, few_tokens_), logits(*exact_decoder(model), few_tokens_)), 1e-5);
    // Many rows are multiplied with the shipped values themselves.
    EXPECT_LT(relative_error(logits(*packed, many_tokens_), logits(*build_decoder(model, {}), many_tokens_)), 1e-6);
    const nn::BuildOptions wide{.master_dtype = at::kDouble, .compute_dtype = at::kDouble};
    EXPECT_LT(relative_error(logits(*build_decoder(model, wide, WeightForm::kPacked), few_tokens_),
                             logits(*build_decoder(model, wide), few_tokens_)),
              1e-13);
  }
}

TEST_F(PackedDecoder, EmbeddingsAndHeadsToo) {
  for (const bool is_tied : {true, false}) {
    tied = is_tied;
    overrides = {{"embed_tokens", make_scheme(Method::kLsq, 4, 32)}, {"lm_head", make_scheme(Method::kLsq, 3, 64)}};
    const ShippedModel model = make_model(make_scheme(Method::kLsqAsymmetric, 2, 64));
    const auto packed = build_decoder(model, {}, WeightForm::kPacked), dense = build_decoder(model, {});
    EXPECT_FALSE(has_weight(*packed, "model.embed_tokens.weight"));
    EXPECT_TRUE(packed->embed(few_tokens_).equal(dense->embed(few_tokens_)));
    EXPECT_TRUE(packed->head().weight().equal(dense->head().weight()));
    const auto exact = exact_decoder(model);
    at::Tensor embedding = exact->parameters().at("model.embed_tokens.weight").clone();
    const at::Tensor hidden = at::randn({3, 128});
    EXPECT_LT(relative_error(packed->logits(hidden), exact->logits(hidden)), 1e-6);
    EXPECT_LT(relative_error(logits(*packed, many_tokens_), logits(*dense, many_tokens_)), 1e-6);
  }
}

TEST_F(PackedDecoder, KeepsWhatIsAroundALayer) {
  quant::Scheme int8 = make_scheme(Method::kLsqAsymmetric, 4, 32);
  int8.activations = quant::Activations::kInt8;
  const ShippedModel model = make_model(int8);
  const auto packed = build_decoder(model, {}, WeightForm::kPacked);
  EXPECT_FALSE(has_weight(*packed, up_));
  EXPECT_LT(relative_error(logits(*packed, few_tokens_), logits(*exact_decoder(model), few_tokens_)), 5e-3);
  EXPECT_LT(relative_error(logits(*packed, many_tokens_), logits(*build_decoder(model, {}), many_tokens_)), 5e-3);
  const quant::Scheme none = make_scheme(Method::kLsqAsymmetric, 4, 32);
  EXPECT_GT(relative_error(logits(*packed, few_tokens_), logits(*exact_decoder(make_model(none)), few_tokens_)), 5e-3);
}

TEST_F(PackedDecoder, LeavesDenseWhatTheLayoutDoesNotHold) {
  overrides = {{"up_proj", make_scheme(Method::kLsq, 5, 64)},
               {"down_proj", make_scheme(Method::kLsq, 4, 16)},
               {"q_proj", std::nullopt}};
  const ShippedModel model = make_model(make_scheme(Method::kLsqAsymmetric, 2, 64));
  testing::internal::CaptureStderr();
  const auto packed = build_decoder(model, {}, WeightForm::kPacked);
  const std::string said = testing::internal::GetCapturedStderr();
  for (const char* part : {"8 of 12 quantized matrices", "model.layers.0.mlp.up_proj.weight: 5 bits",
                           "model.layers.0.mlp.down_proj.weight: groups of 16, not a multiple of 32"})
    EXPECT_NE(said.find(part), std::string::npos) << said;
  EXPECT_TRUE(has_weight(*packed, up_));
  EXPECT_FALSE(has_weight(*packed, "model.layers.1.mlp.gate_proj.weight"));
  EXPECT_LT(relative_error(logits(*packed, few_tokens_), logits(*build_decoder(model, {}), few_tokens_)), 2e-2);

  EXPECT_EQ(quant::reason_against_packing(make_scheme(Method::kLsq, 4, 128), 256), "");
  EXPECT_EQ(quant::reason_against_packing(make_scheme(Method::kLsq, 4, 20), 20), "");  // a whole row
  EXPECT_NE(quant::reason_against_packing(make_scheme(Method::kLsq, 4, 64, quant::Storage::kExact), 64), "");
  quant::QuantizedWeight odd = quant::round_to_nearest(at::randn({4, 64}), make_scheme(Method::kLsqAsymmetric, 4, 32));
  EXPECT_EQ(quant::reason_against_packing(odd), "");
  odd.zero_point[1][1] = -1;
  EXPECT_NE(quant::reason_against_packing(odd), "");
}

TEST_F(PackedDecoder, GoesOnInPlace) {
  const quant::Scheme scheme = make_scheme(Method::kLsqAsymmetric, 2, 64), wider = make_scheme(Method::kLsq, 4, 32);
  using Overrides = decltype(overrides);
  for (const Overrides& mixed : {Overrides{}, Overrides{{"embed_tokens", wider}},
                                 Overrides{{"v_proj.weight", wider}, {"down_proj", std::nullopt}}})
    for (const bool with_biases : {false, true}) {
      overrides = mixed;
      biases = with_biases;
      const ShippedModel model = make_model(scheme);
      const auto stepping = build_decoder(model, {}, WeightForm::kPacked);
      const auto growing = build_decoder(model, {}, WeightForm::kPacked);
      const at::NoGradGuard no_grad;
      models::KvCache cache;
      stepping->hidden(few_tokens_.narrow(0, 0, 1), {.cache = &cache});
      models::StepState state = stepping->start_steps({&cache}, 20);
      for (const int64_t id : {5, 90, 17}) {
        const at::Tensor ids = at::tensor({id}, at::kLong);
        const at::Tensor found = stepping->step(ids, state);
        const at::Tensor expected = growing->logits(growing->hidden(ids.unsqueeze(1), {.cache = &cache}).select(1, -1));
        EXPECT_LT(relative_error(found, expected), 1e-5);
      }
    }
}

TEST_F(PackedDecoder, IsDifferentiableInItsInputs) {
  overrides = {{"embed_tokens", make_scheme(Method::kLsq, 4, 32)}};
  const ShippedModel model = make_model(make_scheme(Method::kLsqAsymmetric, 2, 64));
  const auto gradient = [&](models::Decoder& decoder) {
    at::Tensor inputs = decoder.embed(few_tokens_).detach().requires_grad_(true);
    decoder.logits(decoder.hidden(few_tokens_, {.input_embeddings = inputs})).square().sum().backward();
    return inputs.grad();
  };
  EXPECT_LT(
      relative_error(gradient(*build_decoder(model, {}, WeightForm::kPacked)), gradient(*build_decoder(model, {}))),
      1e-5);
}

TEST_F(PackedDecoder, RefusesAWrongShapeAsADenseOneDoes) {
  ShippedModel model = make_model(make_scheme(Method::kLsqAsymmetric, 2, 64));
  model.tensors.erase(*model.find(up_));
  model.add({up_, quant::round_to_nearest(at::randn({64, 128}), make_scheme(Method::kLsq, 2, 64))});
  EXPECT_THROW(build_decoder(model, {}, WeightForm::kPacked), UserError);
}

}  // namespace
}  // namespace satin::exporting
