#include "core/nearest.h"

#include <gtest/gtest.h>

namespace satin {

TEST(Nearest, FindsTypos) {
  const std::vector<std::string> keys = {"learning_rate", "weight_decay", "warmup_ratio"};
  EXPECT_EQ(nearest("learnig_rate", keys), "learning_rate");
  EXPECT_EQ(nearest("wieght_decay", keys), "weight_decay");
  EXPECT_EQ(nearest("banana", keys), "");
  EXPECT_EQ(did_you_mean("warmup_ratoi", keys), "; did you mean 'warmup_ratio'?");
}

}  // namespace satin
