#include "report/metrics.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::report {
namespace {
using nlohmann::ordered_json;
using test::TempDir;

ordered_json entry(int64_t step) {
  return {{"step", step}, {"tokens", step * 100}, {"loss", 1.0 / static_cast<double>(step)}};
}

std::vector<int64_t> steps_in(const std::filesystem::path& path) {
  std::vector<int64_t> steps;
  for (const auto& e : read_metrics(path)) steps.push_back(e["step"]);
  return steps;
}

TEST(Metrics, OneLineAnEntryAtOnce) {
  TempDir dir;
  MetricsLog log(dir / "metrics.jsonl");
  log.append(entry(1));
  EXPECT_EQ(test::read_file(dir / "metrics.jsonl"), "{\"step\":1,\"tokens\":100,\"loss\":1.0}\n");
  log.append(entry(2));
  EXPECT_EQ(steps_in(dir / "metrics.jsonl"), (std::vector<int64_t>{1, 2}));
}

TEST(Metrics, ResumeLeavesNoDuplicates) {
  TempDir dir;
  const auto path = dir / "metrics.jsonl";
  {
    MetricsLog log(path);
    for (int64_t step = 1; step <= 9; ++step) log.append(entry(step));
  }
  const std::string whole = test::read_file(path);
  test::write_file(path, whole + "{\"step\":10,\"tok");  // killed in the middle of a write
  {
    MetricsLog log(path, 6);
    EXPECT_EQ(steps_in(path), (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
    for (int64_t step = 7; step <= 9; ++step) log.append(entry(step));
  }
  EXPECT_EQ(test::read_file(path), whole);
  MetricsLog anew(path);
  EXPECT_TRUE(steps_in(path).empty());
}

TEST(Metrics, ReadsWhatAKillLeft) {
  TempDir dir;
  const auto path = dir / "metrics.jsonl";
  test::write_file(path, "{\"step\":1}\n\n{\"step\":2,\"loss\":3");
  EXPECT_EQ(steps_in(path), std::vector<int64_t>{1});
  test::write_file(path, "");
  EXPECT_TRUE(read_metrics(path).empty());
}

TEST(Metrics, NamesTheBadLine) {
  TempDir dir;
  for (const char* bad : {"{\"step\":2,", "[1]", "{\"loss\":1}", "{\"step\":\"2\"}", "\x80\xff"}) {
    test::write_file(dir / "metrics.jsonl", std::string("{\"step\":1}\n") + bad + "\n{\"step\":3}\n");
    try {
      read_metrics(dir / "metrics.jsonl");
      FAIL() << "accepted " << bad;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("metrics.jsonl:2"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(read_metrics(dir / "absent.jsonl"), UserError);
}

TEST(Metrics, NotFiniteBecomesNull) {
  TempDir dir;
  MetricsLog log(dir / "metrics.jsonl");
  log.append({{"step", 1}, {"loss", std::numeric_limits<double>::quiet_NaN()}, {"lr", 0.5}});
  const auto read = read_metrics(dir / "metrics.jsonl");
  EXPECT_TRUE(read[0]["loss"].is_null());
  EXPECT_EQ(numbers_of(read[0]), (std::vector<std::pair<std::string, double>>{{"lr", 0.5}}));
}

TEST(Metrics, NumbersOfInnerObjects) {
  const auto e =
      ordered_json::parse(R"({"step": 4, "loss": 2, "note": "x", "eval": {"books": {"perplexity": 33.5, "step": 4}}})");
  EXPECT_EQ(numbers_of(e), (std::vector<std::pair<std::string, double>>{
                               {"loss", 2}, {"eval/books/perplexity", 33.5}, {"eval/books/step", 4}}));
}

TEST(Metrics, NeedsAStepAndAPlace) {
  TempDir dir;
  MetricsLog log(dir / "metrics.jsonl");
  EXPECT_THROW(log.append({{"loss", 1}}), InternalError);
  EXPECT_THROW(MetricsLog(dir / "absent/metrics.jsonl"), UserError);
}

}  // namespace
}  // namespace satin::report
