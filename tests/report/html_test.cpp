#include "report/html.h"

#include <nlohmann/json.hpp>
#include <regex>

#include "core/error.h"
#include "report/assets.h"
#include "report/markup.h"
#include "report/run_fixture.h"
#include "support/test_support.h"

namespace satin::report {
namespace {
using nlohmann::json;
using test::TempDir;

std::string without_scripts(const std::string& page) {
  return page.substr(0, page.find("<script"));  // they are at the end
}

void expect_self_contained(const std::string& page) {
  // Nothing that a browser would fetch: no reference in an attribute or a style, and a policy that forbids it.
  EXPECT_FALSE(std::regex_search(without_scripts(page), std::regex(R"((src|href|action|data)\s*=|url\(|@import)")));
  EXPECT_EQ(page.find("<script src"), std::string::npos);
  EXPECT_EQ(page.find("<link"), std::string::npos);
  EXPECT_NE(page.find("default-src 'none'"), std::string::npos);
}

TEST(Report, SeveralRunsSideBySide) {
  TempDir dir;
  write_training(dir / "kd", 0.0005, 2.0);
  write_training(dir / "smooth", 0.001, 1.5);
  write_report({dir / "kd", dir / "smooth"}, dir / "report.html");
  const std::string page = test::read_file(dir / "report.html");
  expect_self_contained(page);
  EXPECT_NE(page.find("name=\"viewport\""), std::string::npos);
  EXPECT_NE(page.find("prefers-color-scheme: dark"), std::string::npos);
  // The difference, and only it.
  EXPECT_NE(page.find("<td>optimizer.learning_rate</td><td>0.000500</td><td>0.001000</td>"), std::string::npos);
  EXPECT_EQ(page.find("<td>model.path</td>"), std::string::npos);
  EXPECT_NE(page.find("&quot;*&lt;b&gt;*&quot;"), std::string::npos);  // the resolved files are there as well
  // The last evaluation of each run.
  EXPECT_NE(page.find("<td>kd</td><td>books-valid</td><td>200</td><td>32</td><td>16</td><td>4096</td>"),
            std::string::npos)
      << without_scripts(page);
  EXPECT_NE(page.find("<td>smooth</td><td>books-valid</td><td>200</td><td>31.5</td><td>16</td><td>4096</td>"),
            std::string::npos);

  if (assets::kDygraphJs.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  const json data = data_of(page);
  EXPECT_EQ(data["runs"], json({"kd", "smooth"}));
  std::map<std::string, json> charts = charts_by_title(data);
  for (const char* title : {"loss (total)", "kd", "neighbourhood_share", "learning rate", "gradient norm",
                            "tokens per second", "books-valid/perplexity", "share of weights outside the grid"})
    ASSERT_TRUE(charts.contains(title)) << title;
  EXPECT_FALSE(charts.contains("books-valid/protocol/windows"));
  EXPECT_EQ(charts["loss (total)"]["x_label"], "step");
  const json& second = charts["loss (total)"]["curves"][1];
  EXPECT_EQ(second["name"], "smooth");
  EXPECT_EQ(second["colour"], 1);
  EXPECT_EQ(second["x"].size(), 20u);
  EXPECT_EQ(second["x"][4], 50);
  EXPECT_DOUBLE_EQ(second["y"][4].get<double>(), 2.5);  // 1.5 + 50 / 50
}

TEST(Report, NothingInARunBecomesMarkup) {
  TempDir dir;
  const std::string name = "<script>alert(1)<&'\"";
  test::write_file(dir / name / "metrics.jsonl", json{{"step", 1}, {"</script><b>", 1}}.dump() + "\n" +
                                                     json{{"step", 2}, {"</script><b>", 2}, {"\xc3\xa9", 3}}.dump() +
                                                     "\n");
  test::write_file(dir / name / "config.yaml", "a: </pre><script>alert(2)</script>\n");
  test::write_file(dir / name / "summary.json", R"({"rows": [{"name": "<img>", "x<": null, "size_bytes": 2048}]})");
  write_report({dir / name}, dir / "report.html");
  const std::string page = test::read_file(dir / "report.html");
  EXPECT_EQ(page.find("alert(1)<&"), std::string::npos);
  EXPECT_EQ(page.find("<img>"), std::string::npos);
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(1)&lt;&amp;&#39;&quot;"), std::string::npos);
  EXPECT_NE(page.find("<td>&lt;img&gt;</td><td></td><td>2.0 KiB</td>"), std::string::npos);
  if (assets::kDygraphJs.empty()) return;
  EXPECT_EQ(data_of(page)["runs"][0], name);
  EXPECT_EQ(data_of(page)["grids"][0]["charts"][0]["title"], "</script><b>");
}

TEST(Report, TablesOfTheRun) {
  TempDir dir;
  write_tables(dir / "run");
  write_report({dir / "run"}, dir / "report.html");
  const std::string page = test::read_file(dir / "report.html");
  EXPECT_NE(page.find("<td>rtn</td><td>2</td><td>2.2812</td><td>487.9</td><td>8.0 MiB</td>"), std::string::npos);
  EXPECT_NE(page.find("<td>lm_head</td><td></td><td></td><td>excluded</td>"), std::string::npos);
  expect_self_contained(page);
}

TEST(Report, LongRunsAreThinned) {
  TempDir dir;
  std::string lines;
  for (int step = 1; step <= 12000; ++step) lines += "{\"step\":" + std::to_string(step) + ",\"loss\":1.5}\n";
  test::write_file(dir / "run/metrics.jsonl", lines);
  write_report({dir / "run"}, dir / "report.html");
  if (assets::kDygraphJs.empty()) GTEST_SKIP() << "built without libjs-dygraphs";
  EXPECT_EQ(data_of(test::read_file(dir / "report.html"))["grids"][0]["charts"][0]["curves"][0]["x"].size(), 4000u);
}

TEST(Report, RunsOfTheSameName) {
  TempDir dir;
  write_training(dir / "a/run", 0.1, 1);
  write_training(dir / "b/run", 0.1, 2);
  write_report({dir / "a/run", dir / "b/run/"}, dir / "report.html");
  const std::string page = test::read_file(dir / "report.html");
  EXPECT_NE(page.find("run (1)"), std::string::npos);
  EXPECT_NE(page.find("run (2)"), std::string::npos);
  EXPECT_NE(page.find("The configurations are the same."), std::string::npos);
}

TEST(Report, WhatAPersonCanFix) {
  TempDir dir;
  const auto message = [&](const std::vector<std::filesystem::path>& runs,
                           const std::filesystem::path& output) -> std::string {
    try {
      write_report(runs, output);
    } catch (const UserError& error) {
      return error.what();
    }
    return "accepted";
  };
  std::filesystem::create_directories(dir / "empty");
  write_training(dir / "run", 0.1, 1);
  EXPECT_NE(message({dir / "absent"}, dir / "r.html").find("no such folder"), std::string::npos);
  EXPECT_NE(message({dir / "empty"}, dir / "r.html").find("not a run directory"), std::string::npos);
  EXPECT_NE(message({}, dir / "r.html").find("at least one"), std::string::npos);
  EXPECT_NE(message({dir / "run"}, dir / "absent/r.html").find("cannot create"), std::string::npos);
  test::write_file(dir / "run/summary.json", "{\"rows\": [");
  EXPECT_NE(message({dir / "run"}, dir / "r.html").find("summary.json"), std::string::npos);
  test::write_file(dir / "run/summary.json", "{\"rows\": 7}");
  EXPECT_EQ(message({dir / "run"}, dir / "r.html"), "accepted");
  test::write_file(dir / "run/config.yaml", "a: [1,\nb: {");
  EXPECT_NE(message({dir / "run"}, dir / "r.html").find("config.yaml:"), std::string::npos);
}

TEST(Report, EscapesEverything) { EXPECT_EQ(escape_html("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;"); }

}  // namespace
}  // namespace satin::report
