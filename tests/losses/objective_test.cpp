#include "losses/objective.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::losses {
namespace {

double weight_of(const Objective& objective, const std::string& name, double progress) {
  for (const Term& term : objective.terms(progress))
    if (term.loss->name() == name) return term.weight;
  return -1;
}

TEST(Objective, DefaultIsDistillationAlone) {
  Objective objective{config::Loss{}};
  EXPECT_EQ(objective.terms(0).size(), 1u);
  EXPECT_EQ(weight_of(objective, "kd", 0), 1);
  EXPECT_TRUE(objective.needs_teacher(0));
}

TEST(Objective, SmoothnessStartsAndRamps) {
  config::Loss loss;
  loss.kd.weight = 0;
  loss.ce.weight = 1;
  loss.neighbourhood.rate = 0;
  loss.smoothness.weight = 0.5;
  Objective sudden{loss};
  EXPECT_EQ(weight_of(sudden, "smoothness", 0.49), 0);
  EXPECT_EQ(weight_of(sudden, "smoothness", 0.5), 0.5);
  EXPECT_EQ(weight_of(sudden, "ce", 0), 1);
  EXPECT_FALSE(sudden.needs_teacher(0.49));
  EXPECT_TRUE(sudden.needs_teacher(0.5));
  EXPECT_TRUE(sudden.needs_teacher());
  loss.smoothness.ramp = 0.2;
  Objective slow{loss};
  EXPECT_EQ(weight_of(slow, "smoothness", 0.3), 0);
  EXPECT_NEAR(weight_of(slow, "smoothness", 0.6), 0.25, 1e-12);
  EXPECT_NEAR(weight_of(slow, "smoothness", 0.7), 0.5, 1e-12);
  EXPECT_EQ(weight_of(slow, "smoothness", 1), 0.5);
}

TEST(Objective, NeighboursOfTheTeacherNeedIt) {
  config::Loss loss;
  loss.kd.weight = 0;
  loss.ce.weight = 1;
  EXPECT_TRUE(Objective{loss}.needs_teacher());
  EXPECT_FALSE(Objective{loss}.needs_teacher(0));
  for (const char* source : {"random", "student"}) {
    loss.neighbourhood.source = source;
    EXPECT_FALSE(Objective{loss}.needs_teacher());
  }
  loss.neighbourhood.source = "teacher";
  loss.neighbourhood.random_share = 1;
  EXPECT_FALSE(Objective{loss}.needs_teacher());
}

TEST(Objective, HiddenStatesNeedTheTeacherThroughout) {
  config::Loss loss;
  loss.kd.weight = 0;
  loss.ce.weight = 1;
  loss.neighbourhood.rate = 0;
  EXPECT_FALSE(Objective{loss}.needs_teacher());
  loss.hidden.weight = 0.5;
  EXPECT_TRUE(Objective{loss}.needs_teacher());
  EXPECT_TRUE(Objective{loss}.needs_teacher(0));
  loss.hidden.layers = "first";
  EXPECT_THROW(Objective{loss}, UserError);
}

TEST(Objective, RefusesByKey) {
  config::Loss loss;
  loss.kd.kind = "sideways";
  try {
    Objective{loss};
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "loss.kd.kind: expected forward, reverse, jsd or cakld, found \"sideways\"");
  }
  loss.kd.kind = "reverse";
  loss.smoothness.temperature = 0;
  EXPECT_THROW(Objective{loss}, UserError);
}

}  // namespace
}  // namespace satin::losses
