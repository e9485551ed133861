// The parts of the page that show what was measured after training, and the quantizers.
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "report/assets.h"
#include "report/html.h"
#include "report/run_fixture.h"
#include "support/test_support.h"

namespace satin::report {
namespace {
using nlohmann::json;
using test::TempDir;

struct Page {
  std::string html;
  std::map<std::string, json> charts;
  bool has(const std::string& text) const { return html.find(text) != std::string::npos; }
};

Page page_of(const TempDir& dir, const std::vector<std::filesystem::path>& runs) {
  write_report(runs, dir / "report.html");
  Page page{test::read_file(dir / "report.html"), {}};
  if (page.has("id=\"data\"")) page.charts = charts_by_title(data_of(page.html));
  return page;
}

TEST(Sections, SmoothnessBesideTheTeacher) {
  TempDir dir;
  write_eval(dir / "kd", .5);
  write_eval(dir / "smooth", .25);
  const Page page = page_of(dir, {dir / "kd", dir / "smooth"});
  EXPECT_TRUE(page.has("<h2>Smoothness on books</h2>"));
  EXPECT_TRUE(page.has("<th colspan=\"4\">kd</th><th colspan=\"4\">smooth</th>"));
  // Student, teacher, ratio, excess of both runs: .8 (1 + excess) beside .8.
  EXPECT_TRUE(
      page.has("<tr><td>slope of D_k</td><td>1.2</td><td>0.8</td><td>1.5</td><td>0.4</td><td>1</td>"
               "<td>0.8</td><td>1.25</td><td>0.2</td></tr>"));
  for (const char* row : {"C_avg at x0", "C_lower at x1", "exp(entropy)", "nucleus at .9 (tokens)"})
    EXPECT_TRUE(page.has(std::string("<td>") + row)) << row;
  EXPECT_FALSE(page.has("different protocols"));
  if (page.charts.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";

  const json d = page.charts.at("D_k: mean -ln p_teacher of the k-th candidate");
  EXPECT_EQ(d["x_label"], "k");
  ASSERT_EQ(d["curves"].size(), 3u);  // equal teachers are drawn once
  EXPECT_EQ(d["curves"][1]["name"], "smooth");
  EXPECT_EQ(d["curves"][1]["x"].size(), 40u);
  EXPECT_DOUBLE_EQ(d["curves"][1]["y"][39].get<double>(), 1.25 * std::log(42));
  EXPECT_EQ(d["curves"][2]["name"], "teacher");
  EXPECT_EQ(d["curves"][2]["teacher"], true);
  EXPECT_EQ(d["curves"][2]["colour"], -1);
  EXPECT_DOUBLE_EQ(d["curves"][2]["y"][0].get<double>(), std::log(3));

  const json norms = page.charts.at("Input gradients at x0: share of the tokens");
  EXPECT_EQ(norms["x_format"], "log10");
  for (const json& curve : norms["curves"]) {
    double sum = 0;
    for (const json& share : curve["y"]) sum += share.get<double>();
    EXPECT_NEAR(sum, 1, 1e-12);
    EXPECT_EQ(curve["y"].front(), 0);  // from the empty bin before the first ...
    EXPECT_GT(curve["y"][1], 0);
    EXPECT_EQ(curve["y"].back(), 0);  // ... to the end of the last
    EXPECT_LT(curve["y"].size(), 60u);
  }
  EXPECT_TRUE(page.charts.contains("Input gradients at x1: share of the tokens"));
  EXPECT_EQ(page.charts.at("Effective candidates of 40")["curves"][0]["y"], json({6., 17., 4.4}));
  EXPECT_EQ(page.charts.at("Decoding tree: mean ln(1 + nodes)")["curves"][2]["x"], json({1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Sections, RobustnessWithIntervals) {
  TempDir dir;
  write_eval(dir / "kd", .5);
  const Page page = page_of(dir, {dir / "kd"});
  EXPECT_TRUE(page.has("<h2>Robustness on books</h2>"));
  EXPECT_TRUE(
      page.has("<td>perplexity, share of wrong tokens 0.05</td><td>45 (42.75 to 47.25)</td>"
               "<td>30 (28.5 to 31.5)</td><td>1.5 (1.49 to 1.51)</td><td>15</td>"));
  EXPECT_TRUE(page.has("<td>agreement after one wrong token</td><td>0.71 (0.7 to 0.72)</td><td></td>"));
  if (page.charts.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  const json chart = page.charts.at("Perplexity with wrong input tokens");
  EXPECT_EQ(chart["x_label"], "share of wrong tokens");
  EXPECT_EQ(chart["curves"][0]["x"], json({0., .01, .05, .15}));
  EXPECT_EQ(chart["curves"][0]["y"], json({30., 33., 45., 75.}));
  EXPECT_DOUBLE_EQ(chart["curves"][1]["low"][3].get<double>(), 47.5);
  EXPECT_EQ(page.charts.at("Perplexity with noisy embeddings")["curves"][1]["y"], json({20., 21., 24., 33.}));
}

// As without --teacher, on one layer, on one window.
TEST(Sections, WhatWasNotMeasuredIsLeftOut) {
  TempDir dir;
  test::write_file(dir / "run/eval/alone.json",
                   R"({"text": "t", "task": "smoothness", "entropy": {"student": 3.25}, "gradient_norm": {"x0":
                       {"C_avg": {"student": 0.5}, "histogram_log10": {"bin_edges": [0, 1, 2], "student": [0, 4]}}}})");
  test::write_file(dir / "run/eval/robust.json",
                   R"({"text": "t", "task": "robustness", "perplexity": {"student": 9, "student_ci95": [null, null]},
                       "token_substitution": [{"rate": 0.1, "student": 10, "student_ci95": [null, null]}]})");
  const Page page = page_of(dir, {dir / "run"});
  EXPECT_TRUE(page.has("<th>number</th><th>student</th></tr>"));
  EXPECT_TRUE(page.has("<tr><td>entropy (nats)</td><td>3.25</td></tr>"));
  EXPECT_FALSE(page.has("slope of D_k"));
  EXPECT_TRUE(page.has("<tr><td>perplexity, share of wrong tokens 0.1</td><td>10</td></tr>"));
  if (page.charts.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  EXPECT_EQ(page.charts.size(), 2u);
  EXPECT_EQ(page.charts.at("Input gradients at x0: share of the tokens")["curves"][0]["x"], json({0., 1., 2.}));
  EXPECT_EQ(page.charts.at("Perplexity with wrong input tokens")["curves"][0]["low"], json({nullptr, nullptr}));
}

TEST(Sections, ProtocolsThatDiffer) {
  TempDir dir;
  const std::string result =
      R"({"text": "t", "task": "smoothness", "entropy": {"student": 3}, "protocol": {"windows": )";
  test::write_file(dir / "a/eval/x.json", result + R"(8, "dtype": "Float"}, "model": "a/export/hf"})");
  test::write_file(dir / "b/eval/x.json", result + R"(9, "dtype": "Float"}, "model": "b/export/hf"})");
  test::write_file(dir / "c/eval/x.json", result + R"(8, "dtype": "Float"}, "model": "c/export/hf"})");
  const Page differ = page_of(dir, {dir / "a", dir / "b"});
  EXPECT_TRUE(differ.has("different protocols"));
  EXPECT_TRUE(differ.has("<tr><td>windows</td><td>8</td><td>9</td></tr>"));
  EXPECT_FALSE(page_of(dir, {dir / "a", dir / "c"}).has("different protocols"));
}

TEST(Sections, OtherTasksAndSeveralResultsOnOneText) {
  TempDir dir;
  test::write_file(
      dir / "run/eval/a.json",
      R"({"books": {"perplexity": {"perplexity": 33.5, "tokens": 12, "protocol": {"sequence_length": 64}}}})");
  test::write_file(dir / "run/eval/b.json",
                   R"({"books": {"perplexity": {"perplexity": 34.5}, "choice": {"correct": 7}}})");
  test::write_file(dir / "run/eval/notes.txt", "not looked at");
  const Page page = page_of(dir, {dir / "run"});
  EXPECT_TRUE(page.has("<td>run</td><td>books (a)</td><td>perplexity</td><td>33.5</td><td>12</td><td>64</td>"));
  EXPECT_TRUE(page.has("<td>run</td><td>books (b)</td><td>perplexity</td><td>34.5</td>"));
  EXPECT_TRUE(page.has("<td>run</td><td>books</td><td>choice</td>"));
}

TEST(Sections, BitsOfLayers) {
  TempDir dir;
  const auto list = [](int bits, double perplexity) {
    return json{{"bits", {bits, 2}}, {"effective_bits", bits + .25}, {"perplexity", perplexity}, {"answers", nullptr}};
  };
  const json found{{"full_precision", {{"perplexity", 30}, {"answers", nullptr}}},
                   {"lists", {{"allocation", list(3, 34)}, {"uniform", list(2, 39)}}},
                   {"sensitivity", {{{"2", .5}, {"3", .25}}, {{"2", .125}, {"3", .0625}}}},
                   {"frontier", {list(2, 39), list(3, 34), list(4, 31)}}};
  test::write_file(dir / "run/allocation.json", found.dump());
  const Page page = page_of(dir, {dir / "run"});
  EXPECT_TRUE(page.has("<h2>Bits of layers</h2>"));
  EXPECT_TRUE(page.has("<td>allocation</td><td>3.25</td><td>34</td><td></td><td>3 2</td>"));
  test::write_file(dir / "run/allocation.json", R"({"lists": 3})");
  EXPECT_THROW(page_of(dir, {dir / "run"}), UserError);
  if (page.charts.empty()) GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  const json& losses = page.charts.at("Perplexity")["curves"];
  EXPECT_EQ(losses[0]["y"], (json{39, 34, 31}));
  EXPECT_EQ(losses[0]["x"], (json{2.25, 3.25, 4.25}));
  EXPECT_EQ(page.charts.at("Cost of rounding one layer")["curves"][1]["y"], (json{.25, .0625}));
  EXPECT_FALSE(page.charts.contains("Cross-entropy of the answers, nats a token"));
}

// Means over the entries but the first.
TEST(Sections, WhereTheTimeOfAStepGoesByProcess) {
  TempDir dir;
  std::string metrics;
  for (const double ms : {900., 10., 20.})
    metrics += json{{"step", metrics.empty() ? 1 : static_cast<int>(ms)},
                    {"compute_ms", ms},
                    {"ranks", {{"compute_ms", {ms, ms + 2}}, {"communication_ms", {1, 1.5}}, {"data_ms", {0, .25}}}}}
                   .dump() +
               "\n";
  test::write_file(dir / "run/metrics.jsonl", metrics);
  const Page page = page_of(dir, {dir / "run"});
  EXPECT_TRUE(page.has("<h2>Where the time of a step goes, ms</h2>"));
  EXPECT_TRUE(page.has("<tr><td>0</td><td>15</td><td>1</td><td>0</td></tr>"));
  EXPECT_TRUE(page.has("<tr><td>1</td><td>17</td><td>1.5</td><td>0.25</td></tr>"));
}

TEST(Sections, EachQuantizerAtTheLastEntry) {
  TempDir dir;
  write_quantizers(dir / "run", 3);
  EXPECT_TRUE(
      page_of(dir, {dir / "run"})
          .has("<tr><td>model.layers.2.mlp.up_proj</td><td>3</td><td>0.5</td><td>12.5</td><td>10  40  30  20</td>"));
  EXPECT_TRUE(page_of(dir, {dir / "run"}).has("each layer at step 200 (3 layers)"));
  // A scale that was not finite, levels of more than 4 bits, and a last line that was cut short.
  test::write_file(
      dir / "run/quantizers.jsonl",
      R"({"step": 7, "layers": [{"name": "q", "clipped": 0, "changed": 0, "scale_drift": null, "levels": []}]})"
      "\n{\"step\": 8, \"lay");
  EXPECT_TRUE(page_of(dir, {dir / "run"}).has("<tr><td>q</td><td>0</td><td>0</td><td></td><td></td></tr>"));
}

TEST(Sections, MalformedFilesAreNamed) {
  TempDir dir;
  const auto message = [&](const std::string& file, const std::string& text) -> std::string {
    std::filesystem::remove_all(dir / "run");
    test::write_file(dir / ("run/" + file), text);
    try {
      write_report({dir / "run"}, dir / "r.html");
    } catch (const UserError& error) {
      return error.what();
    }
    return "accepted";
  };
  const auto expect = [&](const std::string& file, const std::string& text, const std::string& part) {
    const std::string found = message(file, text);
    EXPECT_NE(found.find(file), std::string::npos) << text << "\n" << found;
    EXPECT_NE(found.find(part), std::string::npos) << text << "\n" << found;
  };
  for (const char* text : {"", "{", "[1, 2]", "7", "\xff", R"({"books": 3})", R"({"books": {"smoothness": [1]}})",
                           R"({"theta": 0.01, "roots": []})"})
    expect("eval/x.json", text, "satin eval --json");
  const auto smoothness = [](const std::string& rest) {
    return R"({"text": "t", "task": "smoothness", )" + rest + "}";
  };
  expect("eval/x.json", smoothness(R"("entropy": {"student": "3"})"), "/entropy/student");
  expect("eval/x.json", smoothness(R"("neighbour_nll": {"k": 4})"), "/neighbour_nll/k");
  expect("eval/x.json", smoothness(R"("neighbour_nll": {"k": [1, 2], "student": [1]})"), "an array of 2 numbers");
  expect("eval/x.json", smoothness(R"("neighbour_nll": {"k": [1, [2]], "student": [1, 2]})"), "/neighbour_nll/k/1");
  EXPECT_EQ(message("eval/x.json", smoothness(R"("gradient_norm": {"x0": 3}, "neighbour_nll": {}, "protocol": 4)")),
            "accepted");  // nothing that the page looks for
  expect("eval/x.json", R"({"text": "t", "task": "robustness", "token_substitution": 5})", "/token_substitution");
  for (const char* line :
       {R"({"step": 1})", R"({"step": 1, "layers": {}})", R"({"step": 1, "layers": [3]})",
        R"({"step": 1, "layers": [{"name": 1}]})", R"({"step": 1, "layers": [{"name": "q", "clipped": "x"}]})"})
    expect("quantizers.jsonl", std::string(line) + "\n", "layers");
}

}  // namespace
}  // namespace satin::report
