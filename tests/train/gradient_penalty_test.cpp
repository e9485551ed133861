// The finite difference against exact second derivatives by autograd, and against differences of the penalty itself.
#include "train/gradient_penalty.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "io/pretrained.h"
#include "models/tiny_model.h"
#include "quant/policy.h"
#include "support/test_support.h"

namespace satin::train {
namespace {

using nn::BuildOptions;

/// Four sequences of 2, 9, 0 and 5 scored predictions, in two documents each when asked.
data::Batch batch_of_four(bool documents = false) {
  at::manual_seed(11);
  data::Batch batch;
  batch.tokens = models::random_tokens(4, 12);
  batch.loss_mask = at::zeros({4, 12}, at::kBool);
  const std::vector<std::vector<int64_t>> scored = {{3, 7}, {0, 1, 2, 3, 5, 6, 8, 9, 10}, {}, {4, 5, 6, 9, 10}};
  for (int64_t i = 0; i < 4; ++i)
    for (const int64_t t : scored[static_cast<size_t>(i)]) batch.loss_mask[i][t].fill_(true);
  if (documents) batch.document_ids = (at::arange(12) >= 5).to(at::kLong).repeat({4, 1});
  return batch;
}

/// Sequences first ... first + count - 1 of a batch.
data::Batch part(const data::Batch& batch, int64_t first, int64_t count) {
  data::Batch out;
  out.tokens = batch.tokens.narrow(0, first, count);
  out.loss_mask = batch.loss_mask.narrow(0, first, count);
  if (batch.document_ids.defined()) out.document_ids = batch.document_ids.narrow(0, first, count);
  return out;
}

/// The penalty from its definition by autograd, with a graph for its own gradient.
at::Tensor exact_penalty(models::Decoder& decoder, const data::Batch& batch, int64_t layer) {
  std::vector<at::Tensor> taps;
  const at::Tensor hidden = decoder.hidden(batch.tokens, {.document_ids = batch.document_ids, .taps = &taps});
  const at::Tensor log_p = at::log_softmax(decoder.logits(hidden), -1);
  const at::Tensor picked = -log_p.gather(2, batch.tokens.roll(-1, 1).unsqueeze(2)).squeeze(2);
  at::Tensor f = at::zeros({}, log_p.options());
  int64_t num_sequences = 0;
  for (int64_t i = 0; i < batch.tokens.size(0); ++i) {
    const at::Tensor own = picked[i].masked_select(batch.loss_mask[i]);
    if (own.numel() == 0) continue;
    f = f + own.mean();
    ++num_sequences;
  }
  const at::Tensor g = torch::autograd::grad({f}, {taps[layer]}, {}, /*retain_graph=*/true, /*create_graph=*/true)[0];
  return g.square().sum() / static_cast<double>(batch.tokens.size(1) * num_sequences);
}

std::vector<at::Tensor> take(models::Decoder& decoder) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : decoder.parameters().all()) {
    gradients.push_back(parameter.value.grad().defined() ? parameter.value.grad() : at::zeros_like(parameter.value));
    parameter.value.mutable_grad() = at::Tensor();
  }
  return gradients;
}

at::Tensor flat(const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& gradient : gradients) all.push_back(gradient.detach().flatten().to(at::kDouble));
  return at::cat(all);
}

/// What fp64 resolves: the difference's own error falls with the square of its step.
config::GradientPenalty fine() {
  config::GradientPenalty config;
  config.step = 1e-6;
  return config;
}

double relative_error(const at::Tensor& got, const at::Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

class Penalty : public testing::Test {
 protected:
  Penalty() { at::globalContext().setSDPUseFlash(false); }  // fused attention has no second derivative
  ~Penalty() override { at::globalContext().setSDPUseFlash(true); }

  /// A decoder with random parameters; its layers quantized when `rule` says how.
  models::Decoder& model(at::ScalarType master, at::ScalarType compute,
                         const std::optional<config::QuantizationRule>& rule = {}, bool tied = false) {
    registry = std::make_unique<quant::Registry>();
    nn::LinearFactory factory = nn::dense_linear_factory();
    if (rule) {
      config::Quantization quantization;
      quantization.default_rule = *rule;
      factory = quant::quant_linear_factory(quant::Policy(quantization), *registry);
    }
    models::ModelConfig config = models::tiny_config();
    config.head_dim = 4;  // 16 features everywhere, for groups of 8
    config.num_layers = 3;
    config.tied_embeddings = tied;
    decoder = std::make_unique<models::Decoder>(
        config, factory, BuildOptions{.master_dtype = master, .compute_dtype = compute, .trainable = true});
    at::manual_seed(3);
    const at::NoGradGuard no_grad;
    for (const auto& parameter : decoder->parameters().all())  // the same numbers in every dtype
      parameter.value.copy_(at::randn(parameter.value.sizes()) * 0.3 + (parameter.role == nn::Role::kNorm ? 1 : 0));
    if (rule) quant::initialise_from_weights(*registry);
    return *decoder;
  }

  std::vector<at::Tensor> ours(const config::GradientPenalty& config, const std::vector<data::Batch>& batches,
                               double* value = nullptr) {
    GradientPenalty penalty(*decoder, *registry, config, /*chunk_tokens=*/7);
    const at::Tensor found = penalty.accumulate(batches);
    if (value) *value = found.item<double>();
    return take(*decoder);
  }

  std::vector<at::Tensor> exact(const data::Batch& batch, int64_t layer, double* value = nullptr) {
    const at::Tensor penalty = exact_penalty(*decoder, batch, layer);
    penalty.backward();
    if (value) *value = penalty.item<double>();
    return take(*decoder);
  }

  std::unique_ptr<quant::Registry> registry;
  std::unique_ptr<models::Decoder> decoder;
};

TEST_F(Penalty, GradientsEqualDoubleBackward) {
  for (const bool tied : {false, true})
    for (const bool documents : {false, true})
      for (const int64_t layer : {0, 1, 2}) {
        SCOPED_TRACE(cat("tied ", tied, " documents ", documents, " layer ", layer));
        model(at::kDouble, at::kDouble, {}, tied);
        const data::Batch batch = batch_of_four(documents);
        double got_value, want_value;
        config::GradientPenalty config = fine();
        config.layer = layer;
        const auto want = exact(batch, layer, &want_value), got = ours(config, {batch}, &got_value);
        EXPECT_NEAR(got_value, want_value, 1e-12 * want_value);
        for (size_t i = 0; i < want.size(); ++i)
          EXPECT_LE((got[i] - want[i]).norm().item<double>(), 1e-6 * (want[i].norm().item<double>() + 1e-2))
              << decoder->parameters().all()[i].name;
      }
}

TEST_F(Penalty, LayersBelowAreReachedThroughTheInputAndOthersPenalisedDifferently) {
  model(at::kDouble, at::kDouble);
  const data::Batch batch = batch_of_four();
  config::GradientPenalty at_0, at_1;
  at_0.layer = 0;
  double value_0, value_1;
  ours(at_0, {batch}, &value_0);
  const auto gradients = ours(at_1, {batch}, &value_1);
  EXPECT_NE(value_0, value_1);
  const auto& parameters = decoder->parameters().all();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name;
    const bool below = name == "model.layers.0.mlp.up_proj.weight" || name == "model.embed_tokens.weight";
    EXPECT_TRUE(!below || gradients[i].norm().item<double>() > 0) << name;
  }
}

TEST_F(Penalty, Fp32ResolvesTheDifferenceAndBf16TrainingUsesIt) {
  const data::Batch batch = batch_of_four();
  model(at::kDouble, at::kDouble);
  const at::Tensor want = flat(exact(batch, 1));
  model(at::kFloat, at::kFloat);
  const at::Tensor fp32 = flat(ours({}, {batch}));
  const double error = relative_error(fp32, want);
  std::printf("fp32 against double backward: %.5f\n", error);
  EXPECT_LT(error, 0.02);

  models::Decoder& narrow = model(at::kFloat, at::kBFloat16);
  EXPECT_TRUE(at::equal(flat(ours({}, {batch})), fp32));
  EXPECT_EQ(narrow.hidden(batch.tokens).scalar_type(), at::kBFloat16) << "bf16 again";
}

/// A trained model: its default step, in fp32, against fp64.
TEST_F(Penalty, Fp32ResolvesTheDifferenceOfATrainedModel) {
  SATIN_NEEDS_SHARED();
  at::manual_seed(5);
  data::Batch batch;
  batch.tokens = models::random_tokens(2, 48, 1000);
  batch.loss_mask = at::ones({2, 48}, at::kBool);
  batch.loss_mask.select(1, 47).fill_(false);
  registry = std::make_unique<quant::Registry>();
  const auto load = [&](at::ScalarType dtype) {
    decoder = io::load_pretrained(test::shared_dir() / "models/books-29m", nn::dense_linear_factory(),
                                  {.master_dtype = dtype, .compute_dtype = dtype, .trainable = true});
  };
  load(at::kDouble);
  const at::Tensor want = flat(exact(batch, 1));
  load(at::kFloat);
  const double error = relative_error(flat(ours({}, {batch})), want);
  std::printf("books-29m, fp32 against double backward: %.5f\n", error);
  EXPECT_LT(error, 0.005);
}

TEST_F(Penalty, GradientsEqualDifferencesOfThePenalty) {
  model(at::kDouble, at::kDouble);
  const data::Batch batch = batch_of_four(true);
  const auto got = ours(fine(), {batch});
  const auto& parameters = decoder->parameters().all();
  for (size_t i = 0; i < parameters.size(); i += 5) {
    at::Tensor handle = parameters[i].value.detach();
    const at::Tensor direction = at::randn_like(handle);
    const double step = 1e-5;
    const auto shifted = [&](double by) {
      const at::Tensor kept = handle.clone();
      handle.add_(direction, by);
      const double value = exact_penalty(*decoder, batch, 1).item<double>();
      handle.copy_(kept);
      return value;
    };
    const double want = (shifted(step) - shifted(-step)) / (2 * step);
    EXPECT_NEAR((got[i] * direction).sum().item<double>(), want, 1e-5 * (std::abs(want) + 1e-3)) << parameters[i].name;
  }
}

/// Rounding is straight-through: of weights in the gradient, of activations by keeping what the first pass rounded off.
TEST_F(Penalty, QuantizedStudentsEqualDoubleBackwardThroughTheEstimator) {
  struct Case {
    const char *method, *activations, *kv_cache;
    double bits;
  };
  for (const Case& c :
       {Case{"lsq_asymmetric", "none", "none", 2}, Case{"lsq", "int8", "none", 3}, Case{"lwc", "float8", "int8", 3},
        Case{"bitnet", "int8", "int4", 1.58}, Case{"onebit", "float8", "none", 1}}) {
    SCOPED_TRACE(cat(c.method, " ", c.activations, " ", c.kv_cache));
    config::QuantizationRule rule;
    rule.method = c.method;
    rule.bits = c.bits;
    rule.group_size = rule.method == "onebit" ? -1 : 8;
    rule.activations = c.activations;
    model(at::kDouble, at::kDouble, rule).store_keys_and_values_as(models::kv_cache_format(c.kv_cache, "case"));
    const data::Batch batch = batch_of_four();
    double got_value, want_value;
    const auto want = exact(batch, 1, &want_value), got = ours(fine(), {batch}, &got_value);
    EXPECT_NEAR(got_value, want_value, 1e-9 * want_value);
    for (size_t i = 0; i < want.size(); ++i)
      EXPECT_LE((got[i] - want[i]).norm().item<double>(), 1e-6 * (want[i].norm().item<double>() + 1e-2))
          << decoder->parameters().all()[i].name;
  }
}

TEST_F(Penalty, TheSplitIntoMicroBatchesIsRounding) {
  model(at::kDouble, at::kDouble);
  const data::Batch batch = batch_of_four();
  config::GradientPenalty all, first_two;
  first_two.sequences = 2;
  for (const auto& config : {all, first_two}) {
    const at::Tensor whole = flat(ours(config, {batch}));
    const at::Tensor split = flat(ours(config, {part(batch, 0, 1), part(batch, 1, 2), part(batch, 3, 1)}));
    EXPECT_LT(relative_error(split, whole), 1e-10);
  }
  EXPECT_LT(relative_error(flat(ours(first_two, {batch})), flat(ours(all, {part(batch, 0, 2)}))), 1e-10);
}

/// What a process runs that has no sequence of its own: no NaN where the layer's input is zero too.
TEST_F(Penalty, TextOfWhichNothingIsScoredAddsNothing) {
  models::Decoder& student = model(at::kDouble, at::kDouble);
  at::Tensor(student.parameters().at("model.embed_tokens.weight")).detach()[0].zero_();
  config::GradientPenalty config;
  config.layer = 0;
  const data::Batch batch = batch_of_four();
  data::Batch empty = part(batch, 0, 1);
  empty.tokens = at::zeros_like(empty.tokens);
  empty.loss_mask = at::zeros_like(empty.loss_mask);
  double alone_value, value;
  const at::Tensor alone = flat(ours(config, {batch}, &alone_value)), got = flat(ours(config, {empty, batch}, &value));
  EXPECT_EQ(value, alone_value);
  EXPECT_TRUE(at::equal(got, alone));
}

/// This process begins with the step's fourth sequence.
TEST(FirstSequences, AreThoseOfTheStep) {
  const data::Batch batch = batch_of_four(true);
  data::Batch idle = part(batch, 0, 1);
  idle.idle = true;
  const std::vector<data::Batch> own = {part(batch, 0, 1), part(batch, 1, 2), idle};
  const auto chosen = [&](int64_t most) { return first_sequences(own, most, 3, *dist::Communicator::alone()); };
  EXPECT_TRUE(chosen(3).batches.empty());
  EXPECT_EQ(chosen(3).num_scored, 0);
  ASSERT_EQ(chosen(4).batches.size(), 1u);
  const FirstSequences two = chosen(5), all = chosen(0);
  ASSERT_EQ(two.batches.size(), 2u);
  EXPECT_EQ(two.num_scored, 2);
  EXPECT_TRUE(at::equal(two.batches[1].tokens, batch.tokens.narrow(0, 1, 1)));
  EXPECT_TRUE(at::equal(two.batches[1].document_ids, batch.document_ids.narrow(0, 1, 1)));
  ASSERT_EQ(all.batches.size(), 2u);
  EXPECT_EQ(all.batches[1].tokens.size(0), 2);
  EXPECT_EQ(all.num_scored, 2) << "of the third nothing is scored";
}

TEST_F(Penalty, TheRatioIsThatOfTheGradientsAddedToTheLosses) {
  model(at::kFloat, at::kFloat);
  const data::Batch batch = batch_of_four();
  config::GradientPenalty config;
  config.gradient_ratio = 0.2;
  config.start = 0;
  GradientPenalty penalty(*decoder, *registry, config, 0);
  const auto run = [&](double progress) {
    for (const auto& parameter : decoder->parameters().all())
      parameter.value.mutable_grad() = at::ones_like(parameter.value) * 0.01;
    const auto result = penalty.add({batch}, 0, progress);
    const at::Tensor total = flat(take(*decoder)), losses = at::full_like(total, 0.01);
    EXPECT_NEAR(((total - losses).norm() / losses.norm()).item<double>(), result->ratio, 1e-4);
    return *result;
  };
  EXPECT_NEAR(run(0.5).ratio, 0.2, 1e-6);
  const PenaltyResult again = run(0.5);
  EXPECT_NEAR(again.ratio, 0.2, 1e-6);
  EXPECT_NEAR(again.value.item<double>(), exact_penalty(*decoder, batch, 1).item<double>(),
              1e-4 * again.value.item<double>());
}

TEST_F(Penalty, TheGuardKeepsTheLossesGradient) {
  models::Decoder& broken = model(at::kFloat, at::kFloat);
  const data::Batch batch = batch_of_four();
  config::GradientPenalty config;
  config.weight = 1e12;
  const auto add = [&](int64_t layer) {
    config.layer = layer;
    GradientPenalty penalty(*decoder, *registry, config, 0);
    for (const auto& parameter : decoder->parameters().all())
      parameter.value.mutable_grad() = at::ones_like(parameter.value) * 0.01;
    testing::internal::CaptureStderr();
    const double ratio = penalty.add({batch}, 41, 0.9)->ratio;
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("loss.lgr: step 42: the penalty is "), std::string::npos) << said;
    return std::make_pair(ratio, flat(take(*decoder)));
  };
  const auto [ratio, total] = add(1);
  EXPECT_NEAR(ratio, 1, 1e-6);
  EXPECT_NEAR(((total - 0.01).norm() / (at::zeros_like(total) + 0.01).norm()).item<double>(), 1, 1e-3);

  at::Tensor(broken.parameters().at("model.embed_tokens.weight")).detach().zero_();  // rms(x) = 0: e is 0
  EXPECT_TRUE(at::equal(add(0).second, at::full_like(total, 0.01f)));
}

TEST_F(Penalty, AppliesWhenItIsDueAndNeedsItsLayer) {
  model(at::kFloat, at::kFloat);
  config::GradientPenalty config;
  config.weight = 1;
  config.start = 0.5;
  config.every_n_steps = 3;
  const GradientPenalty penalty(*decoder, *registry, config, 0);
  std::vector<int64_t> steps;
  for (int64_t step = 0; step < 12; ++step)
    if (penalty.applies(step, static_cast<double>(step) / 12)) steps.push_back(step);
  EXPECT_EQ(steps, (std::vector<int64_t>{8, 11}));
  config.weight = 0;
  EXPECT_FALSE(GradientPenalty(*decoder, *registry, config, 0).applies(11, 0.9));
  config.layer = 3;
  EXPECT_THROW(GradientPenalty(*decoder, *registry, config, 0), UserError);

  data::Batch unscored = part(batch_of_four(), 2, 1);
  config.layer = 1;
  config.weight = 1;
  EXPECT_FALSE(GradientPenalty(*decoder, *registry, config, 0).add({unscored}, 0, 0.9));
}

}  // namespace
}  // namespace satin::train
