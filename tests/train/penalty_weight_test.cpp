#include "train/penalty_weight.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/test_support.h"

namespace satin::train {
namespace {

config::GradientPenalty by_ratio(double ratio) {
  config::GradientPenalty config;
  config.gradient_ratio = ratio;
  return config;
}

TEST(PenaltyWeight, AWeightIsTakenAsItIsAndItsRatioTold) {
  config::GradientPenalty config;
  config.weight = 0.5;
  PenaltyWeight weight(config);
  const auto choice = weight.choose(/*penalty_norm=*/2, /*loss_norm=*/8, /*share=*/0.5);
  EXPECT_EQ(choice.weight, 0.25);
  EXPECT_EQ(choice.ratio, 0.25 * 2 / 8);
  EXPECT_EQ(choice.problem, "");
}

/// The geometric mean of loss over penalty norms, recent ones first: by hand for three steps.
TEST(PenaltyWeight, ARatioFollowsTheMeasuredNorms) {
  PenaltyWeight weight(by_ratio(0.1));
  EXPECT_NEAR(weight.choose(2, 8, 1).weight, 0.1 * 4, 1e-15);
  EXPECT_NEAR(weight.choose(1, 8, 1).weight, 0.1 * std::pow(4, 0.9) * std::pow(8, 0.1), 1e-14);
  const auto third = weight.choose(4, 1, 0.5);
  const double expected = 0.5 * 0.1 * std::pow(4, 0.81) * std::pow(8, 0.09) * std::pow(0.25, 0.1);
  EXPECT_NEAR(third.weight, expected, 1e-14);
  EXPECT_NEAR(third.ratio, expected * 4 / 1, 1e-14);
}

TEST(PenaltyWeight, TheRunningMeanSurvivesTextToTheLastBit) {
  PenaltyWeight one(by_ratio(0.3)), other(by_ratio(0.3)), fresh(by_ratio(0.3));
  fresh.load_state(other.state());  // nothing measured yet
  for (const double norm : {0.1, 0.7, 1. / 3}) one.choose(norm, 1, 1);
  other.load_state(nlohmann::json::parse(one.state().dump()));
  EXPECT_EQ(one.choose(0.2, 3, 1).weight, other.choose(0.2, 3, 1).weight);
  EXPECT_EQ(fresh.choose(0.5, 1, 1).weight, 0.3 * std::exp(std::log(2.)));
}

TEST(PenaltyWeight, TooLongIsScaledBackAndNotFiniteLeftOut) {
  config::GradientPenalty config;
  config.weight = 100;
  PenaltyWeight weight(config);
  const auto long_one = weight.choose(3, 6, 1);
  EXPECT_EQ(long_one.weight, PenaltyWeight::kMostRatio * 6 / 3);
  EXPECT_EQ(long_one.ratio, PenaltyWeight::kMostRatio);
  EXPECT_NE(long_one.problem.find("would be 50 times"), std::string::npos) << long_one.problem;

  PenaltyWeight running(by_ratio(0.1));
  running.choose(2, 8, 1);
  const nlohmann::json before = running.state();
  for (const double bad : {std::nan(""), HUGE_VAL}) {
    for (const auto& choice : {running.choose(bad, 1, 1), running.choose(1, bad, 1)}) {
      EXPECT_EQ(choice.weight, 0);
      EXPECT_NE(choice.problem.find("not finite"), std::string::npos);
    }
  }
  EXPECT_EQ(running.choose(1, 0, 1).weight, 0) << "no losses to compare with";
  EXPECT_EQ(running.choose(0, 1, 1).weight, 0) << "a model that is flat";
  EXPECT_EQ(running.state(), before) << "what was not measured is not averaged";
}

}  // namespace
}  // namespace satin::train
