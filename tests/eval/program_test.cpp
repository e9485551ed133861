// satin eval --teacher as a user calls it, on the shipped tiny teacher.
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "support/test_support.h"

namespace satin::eval {
namespace {

using nlohmann::json;

struct Program : testing::Test {
  test::TempDir dir;
  std::filesystem::path quick = test::source_dir() / "configs/quickstart";

  test::ProcessResult satin(const std::string& arguments) {
    const char* binary = std::getenv("SATIN_BINARY");
    return test::run((binary ? std::string(binary) : (test::source_dir() / "build/release/satin").string()) + " " +
                     arguments);
  }
  test::ProcessResult eval(const std::string& more) {
    return satin("eval --device cpu --limit 2 --sequence-length 32 --model " + (quick / "teacher").string() +
                 " --data " + (quick / "text/valid.jsonl").string() + " " + more);
  }
  std::string teacher() const { return "--teacher " + (quick / "teacher").string() + " "; }
};

TEST_F(Program, ComparesWithATeacher) {
  const auto found = eval(teacher() + "--tasks smoothness,robustness --roots 3 --seed 4 --json " +
                          (dir / "out.json").string() + " --dump-roots " + (dir / "roots.json").string());
  ASSERT_EQ(found.exit_code, 0) << found.output;
  for (const char* text : {"C_avg x0", "slope of D_k", "tree nodes at depth 8", "agreement", "protocol"})
    EXPECT_NE(found.output.find(text), std::string::npos) << text << "\n" << found.output;
  const json all = json::parse(test::read_file(dir / "out.json"))["valid"];
  EXPECT_EQ(all["smoothness"]["neighbour_nll"]["excess"], json(std::vector<double>(40, 0.0)));
  EXPECT_EQ(all["smoothness"]["gradient_norm"]["x1"]["C_avg"]["ratio"], 1.0);
  EXPECT_EQ(all["smoothness"]["protocol"]["sequence_length"], 32);
  EXPECT_EQ(all["robustness"]["token_substitution"][2]["ratio"], 1.0);
  EXPECT_EQ(all["robustness"]["protocol"]["seed"], 4);
  const json roots = json::parse(test::read_file(dir / "roots.json"))["roots"];
  ASSERT_EQ(roots.size(), 3u);
  EXPECT_EQ(roots[0]["context"].size(), 16u);
  EXPECT_EQ(roots[0]["draws"].size(), 8u);
}

// The files in RUN/eval, of several tasks or of one, are what the report reads.
TEST_F(Program, TheReportShowsIt) {
  const auto file = [&](const char* name) { return " --json " + (dir / "run/eval").string() + "/" + name; };
  std::filesystem::create_directories(dir / "run/eval");
  for (const auto& found : {eval(teacher() + "--tasks perplexity,smoothness,robustness --roots 3" + file("all.json")),
                            eval("--tasks robustness --name alone" + file("alone.json")),
                            satin("report " + (dir / "run").string() + " --output " + (dir / "r.html").string())})
    ASSERT_EQ(found.exit_code, 0) << found.output;
  const std::string page = test::read_file(dir / "r.html");
  for (const char* text :
       {"<h2>Smoothness on valid</h2>", "<h2>Robustness on valid</h2>", "<h2>Robustness on alone</h2>",
        "<td>slope of D_k</td>", "<td>mass on the teacher&#39;s 40</td>", "<td>C_avg at x1</td>",
        "<td>ln(1 + nodes) at depth 8</td>", "<td>perplexity, noise over RMS 0.2</td>",
        "<td>run</td><td>valid</td><td>perplexity</td>"})
    EXPECT_NE(page.find(text), std::string::npos) << text;
  if (page.find("id=\"data\"") == std::string::npos)
    GTEST_SKIP() << "built without libjs-dygraphs: no curves to look at";
  for (const char* chart :
       {"D_k: mean", "Input gradients at x0", "Input gradients at x1", "Effective candidates of 40",
        "Decoding tree: mean", "Perplexity with wrong input tokens", "Perplexity with noisy embeddings"})
    EXPECT_NE(page.find(std::string("\"title\":\"") + chart), std::string::npos) << chart;
}

TEST_F(Program, SaysWhatDoesNotGoTogether) {
  for (const auto& [arguments, text] : std::vector<std::pair<std::string, std::string>>{
           {"--tasks smoothness --dump-roots " + (dir / "roots.json").string(), "--dump-roots: expected"},
           {"--tasks smothness", "smoothness"},
           {"--tasks smoothness --teacher " + dir.path().string(), "config.json"}}) {
    const auto found = eval(arguments);
    EXPECT_EQ(found.exit_code, 2) << found.output;
    EXPECT_NE(found.output.find(text), std::string::npos) << text << "\n" << found.output;
  }
  const auto unused = eval(teacher() + "--tasks perplexity");
  EXPECT_EQ(unused.exit_code, 0) << unused.output;
  EXPECT_NE(unused.output.find("--teacher is not used"), std::string::npos) << unused.output;
}

}  // namespace
}  // namespace satin::eval
