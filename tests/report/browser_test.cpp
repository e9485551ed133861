// The page in a real browser; check_page.py says what is looked at.
#include <cstdlib>

#include "report/assets.h"
#include "report/html.h"
#include "report/run_fixture.h"
#include "support/test_support.h"

namespace satin::report {
namespace {

/// SATIN_SCREENSHOTS names a folder in which to keep pictures of what was seen.
void expect_well_shown(const std::filesystem::path& page, const std::string& name) {
  const char* folder = std::getenv("SATIN_SCREENSHOTS");
  const auto result = test::run_python("report/check_page.py " + page.string() +
                                       (folder ? " --screenshots " + std::string(folder) + "/" + name : ""));
  if (result.exit_code == 77) GTEST_SKIP() << result.output;
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST(Browser, SeveralRuns) {
  if (assets::kDygraphJs.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  test::TempDir dir;
  const std::string names[] = {"kd-2bit-group64", "kd-neighbourhood-2bit-group64-rate0.15-a-long-name", "ce"};
  for (int i = 0; i < 3; ++i) {
    write_training(dir / names[i], .0005 * (i + 1), 1 + .4 * i);
    write_quantizers(dir / names[i], 6);
    write_eval(dir / names[i], .2 + .2 * i);
    write_tables(dir / names[i]);
  }
  write_report({dir / names[0], dir / names[1], dir / names[2]}, dir / "report.html");
  expect_well_shown(dir / "report.html", "several");
}

TEST(Browser, OneRun) {
  if (assets::kDygraphJs.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  test::TempDir dir;
  write_training(dir / "run", .0005, 2);
  write_report({dir / "run"}, dir / "report.html");
  expect_well_shown(dir / "report.html", "one");
}

}  // namespace
}  // namespace satin::report
