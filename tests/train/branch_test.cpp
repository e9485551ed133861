// Branch tokens against brute force: the text once more for every position, with that one token replaced.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "losses/branches.h"
#include "models/tiny_model.h"
#include "quant/policy.h"
#include "support/test_support.h"
#include "train/step.h"

namespace satin::train {
namespace {

constexpr int64_t kVocabulary = 31, kTokens = 8;
const nn::BuildOptions kDouble{.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true};

std::unique_ptr<models::Decoder> dense() {
  auto decoder = std::make_unique<models::Decoder>(models::tiny_config(), nn::dense_linear_factory(), kDouble);
  models::randomise(*decoder);
  return decoder;
}

/// Two documents in the first window, three in the second.
at::Tensor two_windows_of_documents() {
  return at::stack({(at::arange(kTokens) >= 3).to(at::kLong),
                    (at::arange(kTokens) >= 1).to(at::kLong) + (at::arange(kTokens) >= 6).to(at::kLong)});
}

/// Logits [B, T, V] at each position t of the text whose token t alone is replaced; `streams`: receives the residual
/// stream [B, T, H] after each layer there.
at::Tensor logits_one_by_one(models::Decoder& decoder, const at::Tensor& text, const at::Tensor& neighbours,
                             const at::Tensor& documents, std::vector<at::Tensor>* streams = nullptr) {
  std::vector<at::Tensor> windows;
  std::vector<std::vector<at::Tensor>> by_layer(decoder.config().num_layers);
  for (int64_t b = 0; b < text.size(0); ++b) {
    std::vector<at::Tensor> positions;
    for (int64_t t = 0; t < text.size(1); ++t) {
      at::Tensor one = text.narrow(0, b, 1).clone();
      one[0][t] = neighbours[b][t];
      const at::Tensor ids = documents.defined() ? documents.narrow(0, b, 1) : at::Tensor();
      const auto keep = [&](int64_t layer, const at::Tensor& x) { by_layer[layer].push_back(x[0][t]); };
      positions.push_back(decoder.logits(decoder.hidden(one, {.document_ids = ids, .after_layer = keep}))[0][t]);
    }
    windows.push_back(at::stack(positions));
  }
  if (streams)
    for (const auto& layer : by_layer) streams->push_back(at::stack(layer).view({text.size(0), text.size(1), -1}));
  return at::stack(windows);
}

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(Branches, LogitsAreThoseOfTheTextWithOneTokenReplaced) {
  const at::NoGradGuard no_grad;
  auto teacher = dense();
  config::Quantization quantization;  // a student, as it is trained: activations and keys have scales a token
  quantization.default_rule.method = "minmax_asymmetric";
  quantization.default_rule.bits = 3;
  quantization.default_rule.group_size = 8;
  quantization.default_rule.activations = "int8";
  quant::Registry registry;
  models::Decoder student(models::tiny_config(), quant::quant_linear_factory(quant::Policy(quantization), registry),
                          kDouble);
  models::randomise(student);
  quant::initialise_from_weights(registry);
  student.store_keys_and_values_as(models::kv_cache_format("int8", "test"));

  const at::Tensor text = models::random_tokens(2, kTokens), neighbours = models::random_tokens(2, kTokens);
  for (models::Decoder* decoder : {teacher.get(), &student})
    for (const at::Tensor& documents : {at::Tensor(), two_windows_of_documents()}) {
      models::ForwardOptions options{.positions = losses::branch_positions(kTokens),
                                     .mask = losses::branch_mask(kTokens, at::kCPU)};
      if (documents.defined()) options.document_ids = documents.repeat({1, 2});
      const at::Tensor logits = decoder->logits(decoder->hidden(at::cat({text, neighbours}, 1), options));
      EXPECT_LT(
          distance(logits.narrow(1, 0, kTokens), decoder->logits(decoder->hidden(text, {.document_ids = documents}))),
          1e-10)
          << "the text sees a branch";
      EXPECT_LT(distance(logits.narrow(1, kTokens, kTokens), logits_one_by_one(*decoder, text, neighbours, documents)),
                1e-10);
      // Neither its own token of the text nor other branches reach a branch.
      const at::Tensor other = at::cat({text, models::random_tokens(2, kTokens)}, 1);
      other.select(1, kTokens + 5).copy_(neighbours.select(1, 5));
      EXPECT_TRUE(at::equal(decoder->hidden(other, options).select(1, kTokens + 5),
                            decoder->hidden(at::cat({text, neighbours}, 1), options).select(1, kTokens + 5)));
    }
}

TEST(Branches, RowsAndTheirTranspose) {
  const at::Tensor scored = at::tensor({0, 1, 0, 1, 0, 0}, at::kLong).to(at::kBool).view({2, 3});
  const losses::ScoredBranches branches(scored);
  ASSERT_EQ(branches.size(), 2);
  const at::Tensor context = at::arange(24).to(at::kDouble).view({2, 6, 2});
  EXPECT_TRUE(at::equal(branches.rows_of(context), at::stack({context[0][4], context[1][3]})));
  at::Tensor want = at::zeros({2, 3, 2}, at::kDouble);
  want[0][1].fill_(7), want[1][0].fill_(7);
  EXPECT_TRUE(at::equal(branches.scatter(at::full({2, 2}, 7, at::kDouble)), want));
}

/// Two micro-batches of two windows, with documents, special tokens and unscored positions.
struct Texts {
  std::vector<data::Batch> batches;
  explicit Texts(bool documents) {
    at::manual_seed(21);
    for (int64_t i = 0; i < 2; ++i) {
      data::Batch batch;
      batch.tokens = models::random_tokens(2, kTokens);
      batch.loss_mask = at::rand({2, kTokens}) < 0.7;
      batch.loss_mask.select(1, kTokens - 1).fill_(false);
      if (documents) {
        batch.document_ids = two_windows_of_documents();
        batch.document_starts = at::cat({at::zeros({2, 1}, at::kBool), batch.document_ids.diff(1, 1) != 0}, 1);
      }
      batch.sample_ids = {static_cast<uint64_t>(10 * i), static_cast<uint64_t>(10 * i + 1)};
      batches.push_back(batch);
    }
  }
};

at::Tensor divergence(const at::Tensor& student, const at::Tensor& teacher) {
  const at::Tensor log_p = at::log_softmax(teacher, -1), log_q = at::log_softmax(student, -1);
  return (log_p.exp() * (log_p - log_q)).sum(-1);
}

/// Squared distance of unit vectors, [..., H] -> [...].
at::Tensor apart(const at::Tensor& a, const at::Tensor& b) {
  return 2 - 2 * (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt();
}

/// A step's losses and gradients, where each branch is a text of its own.
class BruteForce : public testing::TestWithParam<bool> {};

TEST_P(BruteForce, OneStepsLossesAndGradients) {
  auto teacher = dense();
  const std::vector<int64_t> special{0, 3, 9};
  for (const char* source : {"teacher", "student", "random"}) {
    config::Loss loss;
    loss.ce.weight = 0.3;
    loss.kd.weight = 0.7;
    loss.hidden.weight = 0.4;
    loss.neighbourhood.rate = 0.6;
    loss.neighbourhood.top_k = 8;
    loss.neighbourhood.source = source;
    loss.neighbourhood.placement = "branch";
    loss.neighbourhood.depth = 1;
    const Texts texts(GetParam());
    const losses::Neighbourhood neighbourhood(loss.neighbourhood, kVocabulary, special, 1);
    auto student = dense();
    {
      const at::NoGradGuard no_grad;
      for (const auto& parameter : student->parameters().all())
        at::Tensor(parameter.value).add_(at::randn_like(parameter.value), 0.05);
    }

    at::Tensor kd = at::zeros({}, at::kDouble), ce = at::zeros({}, at::kDouble), apart_sum = at::zeros({}, at::kDouble);
    int64_t num_text = 0, num_branches = 0;
    models::Decoder& proposer = source == std::string("student") ? *student : *teacher;
    for (const data::Batch& batch : texts.batches) {
      const at::Tensor documents = batch.document_ids;
      const losses::CleanWindows clean{batch.tokens, batch.document_starts, batch.sample_ids};
      const at::Tensor neighbours = neighbourhood.perturb(batch.tokens, clean, [&](const at::Tensor& tokens) {
        const at::NoGradGuard no_grad;
        return losses::SourceStates{proposer.hidden(tokens, {.document_ids = documents}), proposer.head().weight()};
      });
      const at::Tensor chosen = neighbourhood.chosen(clean, 1);
      EXPECT_FALSE((neighbours != batch.tokens).logical_and(chosen.logical_not()).any().item<bool>());
      using Streams = std::vector<at::Tensor>;
      const auto logits = [&](models::Decoder& decoder, Streams& of_text, Streams& of_branches) {
        const auto keep = [&](int64_t, const at::Tensor& x) { of_text.push_back(x); };
        return std::pair(decoder.logits(decoder.hidden(batch.tokens, {.document_ids = documents, .after_layer = keep})),
                         logits_one_by_one(decoder, batch.tokens, neighbours, documents, &of_branches));
      };
      Streams text_a, text_b, branch_a, branch_b;
      const auto [text_q, branch_q] = logits(*student, text_a, branch_a);
      const auto [text_p, branch_p] = logits(*teacher, text_b, branch_b);
      const at::Tensor beside = chosen.logical_and(batch.loss_mask);
      const at::Tensor targets = batch.tokens.roll(-1, 1).unsqueeze(2);
      ce = ce - (at::log_softmax(text_q, -1).gather(2, targets).squeeze(2) * batch.loss_mask).sum();
      kd = kd + (divergence(text_q, text_p.detach()) * batch.loss_mask).sum() +
           (divergence(branch_q, branch_p.detach()) * beside).sum();
      for (size_t layer = 0; layer < text_a.size(); ++layer)
        apart_sum = apart_sum + (apart(text_a[layer], text_b[layer].detach()) * batch.loss_mask).sum() +
                    (apart(branch_a[layer], branch_b[layer].detach()) * beside).sum();
      num_text += batch.loss_mask.sum().item<int64_t>();
      num_branches += beside.sum().item<int64_t>();
    }
    ASSERT_GT(num_branches, 4);
    ASSERT_LT(num_branches, num_text);
    ce = ce / num_text;
    kd = kd / (num_text + num_branches);
    const at::Tensor hidden = apart_sum / (2 * (num_text + num_branches));  // two layers
    (0.3 * ce + 0.7 * kd + 0.4 * hidden).backward();
    std::map<std::string, at::Tensor> want;
    for (const auto& parameter : student->parameters().all()) {
      want[parameter.name] = parameter.value.grad().clone();
      parameter.value.mutable_grad() = at::Tensor();
    }

    const losses::Objective objective(loss);
    quant::Registry registry;
    TrainingStep step(*student, registry, teacher.get(), objective, neighbourhood, {.chunk_tokens = 5});
    const StepResult result = step.run(texts.batches, 0.5);
    EXPECT_EQ(result.num_scored, num_text);
    EXPECT_EQ(result.num_branches, num_branches);
    EXPECT_EQ(result.num_tokens, 4 * kTokens);
    EXPECT_NEAR(result.losses.at("ce").item<double>(), ce.item<double>(), 1e-12);
    EXPECT_NEAR(result.losses.at("kd").item<double>(), kd.item<double>(), 1e-12);
    EXPECT_NEAR(result.losses.at("hidden").item<double>(), hidden.item<double>(), 1e-12);
    EXPECT_NEAR(result.total.item<double>(), (0.3 * ce + 0.7 * kd + 0.4 * hidden).item<double>(), 1e-12);
    for (const auto& parameter : student->parameters().all())
      EXPECT_LE((parameter.value.grad() - want.at(parameter.name)).norm().item<double>(),
                1e-10 * (1 + want.at(parameter.name).norm().item<double>()))
          << source << " " << parameter.name;
  }
}
INSTANTIATE_TEST_SUITE_P(Documents, BruteForce, testing::Bool());

TEST(Branches, RateOneScoresEachThatMayBeReplacedAndRateZeroAtTheStartNone) {
  auto teacher = dense(), student = dense();
  config::Loss loss;
  loss.neighbourhood.rate = 1;
  loss.neighbourhood.start = 0.5;
  loss.neighbourhood.top_k = 8;
  loss.neighbourhood.placement = "branch";
  loss.neighbourhood.depth = 1;
  const Texts texts(true);
  const losses::Objective objective(loss);
  const losses::Neighbourhood neighbourhood(loss.neighbourhood, kVocabulary, {0, 3, 9}, 1);
  quant::Registry registry;
  TrainingStep step(*student, registry, teacher.get(), objective, neighbourhood);
  EXPECT_EQ(step.run(texts.batches, 0.4).num_branches, 0);
  int64_t want = 0;
  for (const data::Batch& batch : texts.batches)
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 1; t < kTokens; ++t) {
        const int64_t id = batch.tokens[b][t].item<int64_t>();
        want += batch.loss_mask[b][t].item<bool>() && !batch.document_starts[b][t].item<bool>() && id != 0 && id != 3 &&
                id != 9;
      }
  EXPECT_EQ(step.run(texts.batches, 0.5).num_branches, want);
}

TEST(Branches, WalksAreRefusedByBothNames) {
  config::Neighbourhood walk;
  walk.placement = "branch";
  walk.depth = 2;
  try {
    losses::Neighbourhood(walk, kVocabulary, {}, 0);
    FAIL();
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("loss.neighbourhood.depth"), text.npos);
    EXPECT_NE(text.find("loss.neighbourhood.placement"), text.npos);
  }
}

}  // namespace
}  // namespace satin::train
