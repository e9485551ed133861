#include "report/html.h"

#include <nlohmann/json.hpp>
#include <regex>

#include "core/error.h"
#include "report/assets.h"
#include "support/test_support.h"

namespace satin::report {
namespace {
using nlohmann::json;
using test::TempDir;

void write_run(const std::filesystem::path& dir, double rate, double offset) {
  test::write_file(dir / "config.yaml",
                   "model:\n  path: ../teacher\noptimizer:\n  learning_rate: " + std::to_string(rate) +
                       "\nquantization:\n  overrides:\n    - match: \"*<b>*\"\n      bits: 3\n");
  std::string lines;
  for (int step = 1; step <= 20; ++step) {
    const double loss = offset + 5.0 / step;
    lines += json{{"step", step * 10}, {"tokens", step * 1000},       {"loss", loss},
                  {"kd", loss / 2},    {"neighbourhood_share", 0.15}, {"lr", rate},
                  {"grad_norm", 0.5},  {"tokens_per_second", 1e5},    {"mfu", nullptr}}
                 .dump() +
             "\n";
    if (step % 10 == 0)
      lines += json{{"step", step * 10}, {"eval", {{"books-valid", {{"perplexity", 30 + offset}, {"tokens", 4096}}}}}}
                   .dump() +
               "\n";
  }
  test::write_file(dir / "metrics.jsonl", lines + "{\"step\":999,\"lo");
}

json data_of(const std::string& page) {
  const std::string open = "<script type=\"application/json\" id=\"data\">";
  const size_t begin = page.find(open) + open.size();
  return json::parse(page.substr(begin, page.find("</script>", begin) - begin));
}

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
  write_run(dir / "kd", 0.0005, 2.0);
  write_run(dir / "smooth", 0.001, 1.5);
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
  EXPECT_NE(page.find("<td>kd</td><td>books-valid</td><td>200</td><td>32</td><td>4096</td>"), std::string::npos)
      << without_scripts(page);
  EXPECT_NE(page.find("<td>smooth</td><td>books-valid</td><td>200</td><td>31.5</td><td>4096</td>"), std::string::npos);

  if (assets::kDygraphJs.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  const json data = data_of(page);
  EXPECT_EQ(data["runs"], json({"kd", "smooth"}));
  std::map<std::string, json> charts;
  for (const json& chart : data["charts"]) charts[chart["title"]] = chart;
  for (const char* title : {"loss (total)", "kd", "neighbourhood_share", "learning rate", "gradient norm",
                            "tokens per second", "books-valid/perplexity"})
    ASSERT_TRUE(charts.contains(title)) << title;
  const json& second = charts["loss (total)"]["curves"][1];
  EXPECT_EQ(second["run"], 1);
  EXPECT_EQ(second["steps"].size(), 20u);
  EXPECT_DOUBLE_EQ(second["values"][4].get<double>(), 2.5);  // 1.5 + 5 / 5
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
  EXPECT_EQ(data_of(page)["charts"][0]["title"], "</script><b>");
}

TEST(Report, TablesOfTheRun) {
  TempDir dir;
  test::write_file(
      dir / "run/summary.json",
      R"({"rows": [{"name": "rtn", "bits": 2, "effective_bits": 2.28125, "perplexity": 487.9, "size_bytes": 8388608}]})");
  test::write_file(dir / "run/quantization.json",
                   R"([{"tensor": "q_proj", "method": "lsq"}, {"tensor": "head", "reason": "excluded"}])");
  write_report({dir / "run"}, dir / "report.html");
  const std::string page = test::read_file(dir / "report.html");
  EXPECT_NE(page.find("<td>rtn</td><td>2</td><td>2.2812</td><td>487.9</td><td>8.0 MiB</td>"), std::string::npos);
  EXPECT_NE(page.find("<td>head</td><td></td><td>excluded</td>"), std::string::npos);
  expect_self_contained(page);
}

TEST(Report, LongRunsAreThinned) {
  TempDir dir;
  std::string lines;
  for (int step = 1; step <= 12000; ++step) lines += "{\"step\":" + std::to_string(step) + ",\"loss\":1.5}\n";
  test::write_file(dir / "run/metrics.jsonl", lines);
  write_report({dir / "run"}, dir / "report.html");
  if (assets::kDygraphJs.empty()) GTEST_SKIP() << "built without libjs-dygraphs";
  EXPECT_EQ(data_of(test::read_file(dir / "report.html"))["charts"][0]["curves"][0]["steps"].size(), 4000u);
}

TEST(Report, RunsOfTheSameName) {
  TempDir dir;
  write_run(dir / "a/run", 0.1, 1);
  write_run(dir / "b/run", 0.1, 2);
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
  write_run(dir / "run", 0.1, 1);
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
