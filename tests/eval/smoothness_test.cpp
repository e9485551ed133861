// Identities and corners of the comparisons; oracle_test.cpp has the numbers.
#include "eval/smoothness.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/candidates.h"
#include "eval/input_gradients.h"
#include "eval/norm_summary.h"
#include "eval/robustness.h"
#include "models/tiny_model.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

using nlohmann::json;

std::vector<int32_t> text(int64_t num_tokens) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < num_tokens; ++i) tokens.push_back(static_cast<int32_t>((i * i * 3 + 5 * i) % 31));
  return tokens;
}

models::Decoder tiny(const nn::BuildOptions& options = {}, int64_t num_layers = 2) {
  models::ModelConfig config = models::tiny_config();
  config.num_layers = num_layers;
  models::Decoder decoder(config, nn::dense_linear_factory(), options);
  models::randomise(decoder);
  return decoder;
}

RobustnessOptions windows_of(int64_t sequence_length) {
  RobustnessOptions options;
  options.sequence_length = sequence_length;
  return options;
}

/// All objects with a "ratio" in a result.
void collect(const json& value, std::vector<json>& found) {
  if (value.is_object() && value.contains("ratio")) found.push_back(value);
  if (value.is_structured())
    for (const json& part : value) collect(part, found);
}

TEST(Smoothness, ATeacherBesideItselfHasNoExcess) {
  models::Decoder model = tiny();
  const Smoothness smooth = smoothness(model, &model, text(70), {.sequence_length = 16, .num_roots = 20});
  const Robustness robust = robustness(model, &model, text(70), windows_of(16));
  std::vector<json> pairs;
  collect(to_json(smooth, model, ""), pairs);
  const size_t num_smooth = pairs.size();
  collect(to_json(robust, model, ""), pairs);
  EXPECT_GE(num_smooth, 8u + 2 + 3 + 4 + 4);  // gradients, D_k and slope, effective, alone, trees
  EXPECT_GE(pairs.size() - num_smooth, 1u + 2 * 3 + 2 * 3 + 1);
  for (const json& numbers : pairs) {
    EXPECT_EQ(numbers["excess"], 0.0) << numbers;
    EXPECT_EQ(numbers["ratio"], 1.0) << numbers;
  }
  const json excess = to_json(smooth, model, "")["neighbour_nll"]["excess"];
  EXPECT_EQ(excess, json(std::vector<double>(31, 0.0)));
  EXPECT_EQ(robust.agreement.mean(), 1);
}

TEST(Smoothness, WithoutATeacherOnlyTheModelsOwnNumbers) {
  models::Decoder model = tiny();
  const json alone = to_json(smoothness(model, nullptr, text(64), {.sequence_length = 16}), model, "");
  const json beside = to_json(smoothness(model, &model, text(64), {.sequence_length = 16}), model, "");
  for (const char* key : {"neighbour_nll", "effective_candidates", "mass_on_teacher_top_40", "decoding_tree"})
    EXPECT_FALSE(alone.contains(key)) << key;
  for (const char* key : {"entropy", "exp_entropy", "nucleus_size_0.9"}) {
    EXPECT_EQ(alone[key]["student"], beside[key]["student"]);
    EXPECT_FALSE(alone[key].contains("ratio"));
  }
  EXPECT_EQ(alone["gradient_norm"]["x1"]["C_avg"]["student"], beside["gradient_norm"]["x1"]["C_avg"]["student"]);
  EXPECT_FALSE(smoothness_table(alone).empty());
  const json robust = to_json(robustness(model, nullptr, text(64), windows_of(16)), model, "");
  EXPECT_FALSE(robust.contains("agreement"));
  EXPECT_TRUE(robust["flips_after_one_token"].contains("student_ci95"));
  EXPECT_FALSE(robustness_table(robust).empty());
}

// Central differences of the loss, in double.
TEST(Smoothness, GradientsAreDerivatives) {
  models::Decoder model = tiny({.master_dtype = at::kDouble, .compute_dtype = at::kDouble});
  const at::Tensor tokens = models::random_tokens(2, 7);
  const InputGradients found = input_gradients(model, tokens, 4);
  const at::NoGradGuard no_grad;
  const auto loss = [&](const at::Tensor& x, int64_t window) {
    const at::Tensor log_prob = model.logits(model.hidden({}, {.input_embeddings = x}))[window].log_softmax(1);
    return -log_prob.slice(0, 0, 6).gather(1, tokens[window].slice(0, 1).unsqueeze(1)).mean().item<double>();
  };
  for (const auto& [b, t] : {std::pair{0, 0}, std::pair{1, 3}, std::pair{1, 5}}) {
    double squares = 0;
    for (int64_t h = 0; h < 16; ++h) {
      at::Tensor up = model.embed(tokens), down = up.clone();
      up[b][t][h] += 1e-5;
      down[b][t][h] -= 1e-5;
      squares += std::pow((loss(up, b) - loss(down, b)) / 2e-5, 2);
    }
    EXPECT_NEAR(found.x0[b][t].item<double>(), std::sqrt(squares), 1e-7);
  }
  EXPECT_EQ(found.x0[0][6].item<double>(), 0);  // the last token predicts nothing
}

TEST(Smoothness, ModelsOfOneLayerHaveNoLayerOne) {
  models::Decoder model = tiny({}, 1);
  const Smoothness result = smoothness(model, &model, text(40), {.sequence_length = 16, .num_roots = 0});
  const json found = to_json(result, model, "");
  EXPECT_TRUE(result.student.x1.empty());
  EXPECT_FALSE(found["gradient_norm"].contains("x1"));
  EXPECT_FALSE(found.contains("decoding_tree"));
}

TEST(Smoothness, BatchesAndChunksDoNotMatter) {
  models::Decoder student = tiny(), teacher = tiny();
  {
    const at::NoGradGuard no_grad;
    at::Tensor(student.parameters().all()[3].value).mul_(1.5);
  }
  std::vector<json> pairs[2];
  for (int i : {0, 1}) {
    const int64_t size = i ? 1000 : 3;
    collect(to_json(smoothness(student, &teacher, text(90),
                               {.sequence_length = 20, .num_roots = 9, .batch_tokens = size, .chunk_tokens = size}),
                    student, ""),
            pairs[i]);
    RobustnessOptions sizes = windows_of(20);
    sizes.score = {.batch_tokens = size, .chunk_tokens = size};
    collect(to_json(robustness(student, &teacher, text(90), sizes), student, ""), pairs[i]);
  }
  ASSERT_EQ(pairs[0].size(), pairs[1].size());
  for (size_t i = 0; i < pairs[0].size(); ++i)
    EXPECT_NEAR(pairs[0][i]["student"].get<double>(), pairs[1][i]["student"].get<double>(),
                1e-4 * std::abs(pairs[0][i]["student"].get<double>()));
}

TEST(Smoothness, TextsAndModelsThatCannotBeMeasured) {
  models::Decoder model = tiny();
  EXPECT_THROW(smoothness(model, nullptr, {1}), UserError);
  EXPECT_THROW(robustness(model, nullptr, {1}), UserError);
  RobustnessOptions all_special;
  all_special.num_tokens = 3;
  all_special.special_ids = {0, 1};
  EXPECT_THROW(robustness(model, nullptr, text(20), all_special), UserError);
  const at::NoGradGuard no_grad;
  at::Tensor(model.parameters().at("lm_head.weight")).fill_(INFINITY);
  EXPECT_THROW(smoothness(model, nullptr, text(20)), UserError);
}

TEST(Candidates, TiesGoToTheLowerId) {
  const at::Tensor logits = at::tensor({1.f, 3.f, 2.f, 3.f, 2.f, 9.f}).unsqueeze(0);
  const Candidates best = candidates(logits, logits.log_softmax(1), /*num_tokens=*/5, 4);  // 9 is padding
  EXPECT_TRUE(at::equal(best.ids[0], at::tensor({1, 3, 2, 4}, at::kLong)));
  const double sum = std::exp(1) + 2 * std::exp(3) + 2 * std::exp(2) + std::exp(9);  // which keeps its mass
  EXPECT_NEAR(best.log_prob[0][2].item<double>(), 2 - std::log(sum), 1e-5);
  EXPECT_TRUE(at::equal(effective(best, .0024)[0], at::tensor({1, 1, 0, 0}).to(at::kBool)));  // e^3 / sum = .00247
}

TEST(Candidates, MoreThanTheVocabularyAreAll) {
  const at::Tensor logits = at::randn({3, 7});
  EXPECT_EQ(candidates(logits, logits.log_softmax(1), 7, 40).ids.size(1), 7);
  EXPECT_EQ(candidates(logits, logits.log_softmax(1), 5, 40).ids.size(1), 5);
}

TEST(Candidates, NucleusIsTheSmallestSetWithTheMass) {
  at::manual_seed(1);
  const at::Tensor prob = (at::randn({40, 700}) * at::arange(40).unsqueeze(1) / 10).softmax(1);  // wide to narrow
  const at::Tensor found = nucleus_size(prob, .9);
  for (int64_t n = 0; n < 40; ++n) {
    std::vector<float> row(prob[n].data_ptr<float>(), prob[n].data_ptr<float>() + 700);
    std::sort(row.rbegin(), row.rend());
    double mass = 0;
    int64_t size = 0;
    while (mass < .9) mass += row[size++];
    EXPECT_EQ(found[n].item<int64_t>(), size) << n;
  }
}

TEST(Norms, QuantilesAndBins) {
  std::vector<float> norms;
  for (int i = 100; i >= 0; --i) norms.push_back(static_cast<float>(i));
  const NormSummary summary = summarise(norms);
  EXPECT_EQ(summary.mean, 50);
  EXPECT_EQ(summary.max, 100);
  EXPECT_EQ(summary.p50, 50);
  EXPECT_NEAR(summary.p99, 99, 1e-9);
  EXPECT_NEAR(summarise({1, 2}).p50, 1.5, 1e-9);
  EXPECT_NEAR(summarise({1, 2}).p99, 1.99, 1e-6);
  const auto counts = log10_histogram({0, 1e-20f, 0.015f, 1e6f});
  EXPECT_EQ(counts.front(), 1);
  EXPECT_EQ(counts[81], 1);  // log10 .015 = -1.82, in [-1.9, -1.8)
  EXPECT_EQ(counts.back(), 1);
  EXPECT_NEAR(LogBins::edge(81), -1.9, 1e-12);
}

TEST(DecodingTree, SizesAreProductsOfBranches) {
  std::vector<Branches> paths = {{2, 3, 1, 4, 1, 1, 1, 2}, {5, 0, 0, 0, 0, 0, 0, 0}};
  EXPECT_EQ(tree_size(paths, 1).mean, 3.5);
  EXPECT_EQ(tree_size(paths, 4).mean, 12);
  EXPECT_EQ(tree_size(paths, 8).mean, 24);
  EXPECT_NEAR(tree_size(paths, 4).mean_log1p, std::log(25) / 2, 1e-12);
}

}  // namespace
}  // namespace satin::eval
