#include "optim/schedule.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::optim {
namespace {

TEST(Schedule, AgreesWithTransformers) {
  SATIN_NEEDS_PYTHON("transformers");
  test::TempDir dir;
  const auto result = test::run_python("optim/schedule_oracle.py " + (dir / "factors.json").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const auto cases = nlohmann::json::parse(test::read_file(dir / "factors.json"));
  ASSERT_GT(cases.size(), 20u);
  for (const auto& c : cases) {
    config::Optimizer options;
    options.schedule = c["schedule"];
    options.warmup_ratio = c["warmup_ratio"];
    options.min_learning_rate_ratio = c["floor"];
    for (size_t step = 0; step < c["values"].size(); ++step)
      EXPECT_NEAR(learning_rate_multiplier(static_cast<int64_t>(step), c["total"], options),
                  c["values"][step].get<double>(), 1e-12)
          << options.schedule << " step " << step << " of " << c["total"] << ", warm-up " << options.warmup_ratio;
  }
}

TEST(Schedule, EndsAtTheFloorAndStaysThere) {
  config::Optimizer options;
  options.min_learning_rate_ratio = 0.25;
  for (const char* schedule : {"cosine", "linear"}) {
    options.schedule = schedule;
    EXPECT_DOUBLE_EQ(learning_rate_multiplier(100, 100, options), 0.25);
    EXPECT_DOUBLE_EQ(learning_rate_multiplier(1000, 100, options), 0.25);
  }
}

TEST(Schedule, RefusesAnotherName) {
  config::Optimizer options;
  options.schedule = "cosin";
  try {
    learning_rate_multiplier(0, 1, options);
    FAIL() << "accepted";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'cosine'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace satin::optim
