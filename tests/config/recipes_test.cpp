// The configurations that ship are valid.
#include "config_support.h"
#include "support/test_support.h"

namespace satin::config::test {
namespace {

namespace fs = std::filesystem;

TEST(Recipes, AllLoad) {
  int num_files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(satin::test::source_dir() / "configs")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path());
    Config config;
    ASSERT_NO_THROW(config = load(entry.path(), {}, Job::any));
    // Files may be made by an earlier step; everything else must be ready for training.
    std::vector<std::string> found;
    try {
      load(entry.path());
    } catch (const UserError& error) {
      found = lines(error.what());
    }
    for (const auto& line : found) EXPECT_THAT(line, testing::HasSubstr(": there is no ")) << line;
    ++num_files;
  }
  EXPECT_GE(num_files, 3);
}

TEST(Recipes, QuickstartIsTwoBitAndDiffersInNeighbourhoodAlone) {
  const fs::path folder = satin::test::source_dir() / "configs/quickstart";
  const Config qat = load(folder / "qat.yaml", {}, Job::any);
  Config smooth = load(folder / "qat-smoothness.yaml", {}, Job::any);
  ASSERT_TRUE(qat.quantization);
  EXPECT_EQ(qat.quantization->default_rule.bits, 2);
  EXPECT_EQ(qat.loss.neighbourhood.rate, 0);
  EXPECT_GT(smooth.loss.neighbourhood.rate, 0);
  smooth.loss.neighbourhood = qat.loss.neighbourhood;
  smooth.train.output_dir = qat.train.output_dir;
  EXPECT_EQ(smooth, qat) << "a fair comparison changes one thing";
}

}  // namespace
}  // namespace satin::config::test
