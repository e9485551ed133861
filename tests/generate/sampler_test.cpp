#include "generate/sampler.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::generate {
namespace {

/// Frequencies of many draws from softmax(logits).
std::vector<double> frequencies(const std::vector<double>& probabilities, SamplingOptions options, int64_t num_draws) {
  const auto num = static_cast<int64_t>(probabilities.size());
  const at::Tensor logits = at::tensor(probabilities, at::kDouble).log().to(at::kFloat).expand({num_draws, num});
  const at::Tensor counts = at::bincount(sample(logits, options, 3), {}, num).to(at::kDouble) / num_draws;
  return {counts.data_ptr<double>(), counts.data_ptr<double>() + num};
}

void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] == 0)
      EXPECT_EQ(found[i], 0) << i;
    else
      EXPECT_NEAR(found[i], expected[i], 5 * std::sqrt(expected[i] / 40000)) << i;
  }
}

const std::vector<double> kP = {0.1, 0.4, 0.05, 0.3, 0.15};

TEST(Sampler, TakesTheMostLikelyAtTemperatureZero) {
  const at::Tensor logits = at::tensor({1.0, 3.0, 2.0, -1.0, 0.0, 7.0}).view({2, 3});
  EXPECT_TRUE(at::equal(sample(logits, {}, 0), at::tensor({1, 2}, at::kLong)));
}

TEST(Sampler, FollowsTheDistribution) { expect_near(frequencies(kP, {.temperature = 1}, 40000), kP); }

TEST(Sampler, SharpensByTemperature) {
  std::vector<double> expected;
  double total = 0;
  for (const double p : kP) total += p * p;
  for (const double p : kP) expected.push_back(p * p / total);
  expect_near(frequencies(kP, {.temperature = 0.5}, 40000), expected);
}

TEST(Sampler, CutsByRankAndByMass) {
  expect_near(frequencies(kP, {.temperature = 1, .top_k = 2}, 40000), {0, 4. / 7, 0, 3. / 7, 0});
  expect_near(frequencies(kP, {.temperature = 1, .top_p = 0.75}, 40000), {0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85});
  expect_near(frequencies(kP, {.temperature = 1, .top_p = 0.01}, 1000), {0, 1, 0, 0, 0});
  // After top_k = 2 the first has 4/7 of the mass.
  expect_near(frequencies(kP, {.temperature = 1, .top_k = 2, .top_p = 0.5}, 1000), {0, 1, 0, 0, 0});
  expect_near(frequencies(kP, {.temperature = 1, .top_k = 99}, 40000), kP);
}

TEST(Sampler, DrawsByCoordinates) {
  const at::Tensor logits = at::zeros({64, 1000});
  const at::Tensor a = sample(logits, {.temperature = 1, .seed = 1}, 0);
  EXPECT_TRUE(at::equal(a, sample(logits, {.temperature = 1, .seed = 1}, 0)));
  EXPECT_FALSE(at::equal(a, sample(logits, {.temperature = 1, .seed = 1}, 1)));
  EXPECT_FALSE(at::equal(a, sample(logits, {.temperature = 1, .seed = 2}, 0)));
  EXPECT_FALSE((a == a[0]).all().item<bool>());
}

TEST(Sampler, RefusesBadOptions) {
  for (const SamplingOptions& bad :
       {SamplingOptions{.temperature = -1}, SamplingOptions{.temperature = NAN}, SamplingOptions{.top_k = -1},
        SamplingOptions{.top_p = 0}, SamplingOptions{.top_p = 1.5}})
    EXPECT_THROW(check(bad), UserError);
  EXPECT_NO_THROW(check({}));
}

}  // namespace
}  // namespace satin::generate
