// What training minimises, from the command line: neighbours, stored teachers, hidden states, the gradient penalty.
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "integration/cli_fixture.h"

namespace satin {
namespace {

// The penalty falls against the same run with a share of it that trains nothing, and its running state is resumed.
TEST_F(Cli, GradientPenaltyFlattensTheModelAndResumes) {
  const std::string common =
      "train.max_steps=16 export.formats=[] data.valid=[] checkpoint.every_n_steps=7 checkpoint.keep=9 "
      "loss.lgr.start=0 loss.lgr.gradient_ratio=";
  expect(satin(tiny("on", common + "0.5")), 0, {"gradient penalty at layer 1: gradient ratio 0.5, from step 1"});
  ASSERT_EQ(satin(tiny("off", common + "1e-9")).exit_code, 0);
  const auto penalties = [&](const std::string& run) {
    std::vector<double> values;
    std::ifstream lines(dir / run / "metrics.jsonl");
    for (std::string line; std::getline(lines, line);) {
      const auto entry = nlohmann::json::parse(line);
      if (!entry.contains("lgr")) continue;
      EXPECT_GT(entry["lgr_weight"], 0);
      EXPECT_GT(entry["lgr_ratio"], 0);
      values.push_back(entry["lgr"]);
    }
    return values;
  };
  const auto on = penalties("on"), off = penalties("off");
  ASSERT_EQ(on.size(), 16u);
  EXPECT_EQ(on[0], off[0]) << "the same model on the same text";
  EXPECT_LT(std::accumulate(on.end() - 5, on.end(), 0.), 0.9 * std::accumulate(off.end() - 5, off.end(), 0.));
  ASSERT_EQ(satin(tiny("resumed", common + "0.5 --resume " + (dir / "on/checkpoints/step-14").string())).exit_code, 0);
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_EQ(test::read_file(dir / "resumed/checkpoints/step-16" / file),
              test::read_file(dir / "on/checkpoints/step-16" / file));
  expect(satin(tiny("both", common + "0.5 loss.lgr.weight=1")), 2, {"weight (1) and gradient_ratio (0.5) both say"});
  expect(satin(tiny("layer", common + "0.5 loss.lgr.layer=4")), 2, {"loss.lgr.layer: expected a layer of the model"});
  expect(satin(tiny("dry", common + "0.5 --dry-run")), 0, {"gradient penalty at layer 1", "\n  lgr "});
}

TEST_F(Cli, TrainsFromATeacherCacheWithoutTheTeacher) {
  std::string text;  // a few windows
  std::ifstream source(quick / "text/train.jsonl");
  std::getline(source, text);
  test::write_file(dir / "text.jsonl", text + "\n");
  const std::string cached = "data.train=" + (dir / "text.jsonl").string() +
                             " teacher.cache=" + (dir / "teacher").string() + " teacher.cache_top_k=50 ";
  const std::string run = tiny("cached", cached);
  const std::string fill = "cache-teacher" + run.substr(std::string("train").size());
  expect(satin(fill), 0, {"the best 50 tokens a position"});
  expect(satin(fill), 0, {"windows are there"});
  expect(satin(run), 0, {"the teacher itself reads the perturbed text"});
  expect(satin(tiny("branches", cached + "loss.neighbourhood.placement=branch")), 0,
         {"neighbours: from ", "beside the text (branch tokens)"});
  expect(satin(tiny("offline", cached + "loss.neighbourhood.rate=0")), 0, {"it is not in memory"});
  expect(satin(tiny("online", "data.train=" + (dir / "text.jsonl").string() + " loss.neighbourhood.rate=0")), 0, {});
  const auto loss = [&](const std::string& name) {
    std::ifstream metrics(dir / name / "metrics.jsonl");
    std::string line;
    std::getline(metrics, line);
    return nlohmann::json::parse(line)["kd"].get<double>();
  };
  EXPECT_LE(loss("offline"), loss("online"));  // tokens outside of the stored ones are one bucket
  EXPECT_GT(loss("offline"), 0.7 * loss("online"));
  expect(satin(tiny("x", cached + "loss.neighbourhood.rate=0 train.sequence_length=32")), 2,
         {"sequence_length", "64", "32"});
  expect(satin(tiny("x", cached + "loss.neighbourhood.rate=0 loss.kd.temperature=2")), 2, {"temperature 1"});
  expect(satin(tiny("x", cached + "loss.neighbourhood.top_k=60")), 2, {"loss.neighbourhood.top_k", "holds 50"});
}

/// Where windows are read in the data's order, a run from stored copies is the run that draws them itself: smoothness
/// is equal but for the rounding of what is stored. Three windows, so two epochs; a weight hardly moves.
TEST_F(Cli, TrainsFromPerturbedCopiesWithoutTheTeacher) {
  std::string text;
  std::ifstream source(quick / "text/train.jsonl");
  std::getline(source, text);
  test::write_file(dir / "text.jsonl", text.substr(0, 480) + "\"}\n");
  const std::string data = "data.shuffle=false data.train=" + (dir / "text.jsonl").string() +
                           " loss.neighbourhood.rate=.5 loss.neighbourhood.random_share=.3 train.sequence_length=48 "
                           "train.micro_batch_size=1 "
                           "loss.kd.weight=0 loss.smoothness.weight=1 loss.smoothness.start=0 "
                           "optimizer.learning_rate=1e-9 optimizer.scale_learning_rate=1e-9 "
                           "optimizer.zero_point_learning_rate=1e-9 ";
  const std::string cached = data + "teacher.copies=2 teacher.cache_top_k=40 teacher.cache=";
  const auto fill = [&](const std::string& run) { return "cache-teacher" + run.substr(std::string("train").size()); };
  const std::string run = tiny("offline", cached + (dir / "teacher").string());
  expect(satin(fill(run)), 0, {"2 perturbed copies of each"});
  expect(satin(run), 0, {"2 perturbed copies of each window, one an epoch); it is not in memory", "2.00 epochs"});
  expect(satin(tiny("online", data)), 0, {});
  const auto losses = [&](const std::string& name) {
    std::ifstream metrics(dir / name / "metrics.jsonl");
    std::vector<double> found;
    for (std::string line; std::getline(metrics, line);)
      if (const auto entry = nlohmann::json::parse(line); entry.contains("smoothness"))
        found.push_back(entry["smoothness"].get<double>());
    return found;
  };
  const std::vector<double> offline = losses("offline"), online = losses("online");
  ASSERT_EQ(offline.size(), 6u);
  double most_between_copies = 0;
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(offline[i], online[i], 2e-3 * online[i]) << i;
    most_between_copies = std::max(most_between_copies, std::abs(offline[i] - offline[(i + 3) % 6]) / online[i]);
  }
  EXPECT_GT(most_between_copies, 0.05) << "each epoch has its copy";
  const auto refused = [&](const std::string& more, const std::vector<std::string>& texts) {
    expect(satin(tiny("x", cached + (dir / "teacher").string() + " " + more)), 2, texts);
  };
  refused("loss.neighbourhood.rate=.3", {"neighbourhood_rate: 0.5 in the cache, 0.3 here"});
  refused("loss.neighbourhood.source=random", {"neighbourhood_source: teacher in the cache, random here"});
  refused("loss.neighbourhood.top_k=20", {"neighbourhood_top_k: 40 in the cache, 20 here"});
  refused("train.seed=5", {"neighbourhood_seed: 0 in the cache, 5 here"});
  refused("teacher.copies=0", {"copies: 2 in the cache, 0 here"});
  refused("loss.neighbourhood.start=.5", {"teacher.copies", "loss.neighbourhood.start"});
}

TEST_F(Cli, NeighbourhoodRateZeroIsPlainDistillation) {
  ASSERT_EQ(satin(tiny("zero", "loss.neighbourhood.rate=0")).exit_code, 0);
  ASSERT_EQ(
      satin(tiny("random", "loss.neighbourhood.rate=0 loss.neighbourhood.source=random loss.neighbourhood.depth=3"))
          .exit_code,
      0);
  EXPECT_EQ(weights("zero"), weights("random"));
  expect(satin(tiny("late", "loss.neighbourhood.start=1")), 0, {"but never in this run's 6 steps"});
  EXPECT_EQ(weights("zero"), weights("late"));
  expect(satin(tiny("half", "loss.neighbourhood.start=.5")), 0, {"at temperature 4, walks of up to 2, from step 4\n"});
  EXPECT_NE(weights("zero"), weights("half"));
  ASSERT_EQ(satin(tiny("some")).exit_code, 0);
  EXPECT_NE(weights("zero"), weights("some"));
}

TEST_F(Cli, NeighboursBesideTheText) {
  const std::string branch = "loss.neighbourhood.placement=branch loss.neighbourhood.rate=";
  expect(satin(tiny("all", branch + "1")), 0, {"beside the text (branch tokens)"});
  expect(satin(tiny("none", branch + "0")), 0, {});
  expect(satin(tiny("zero", "loss.neighbourhood.rate=0")), 0, {});
  EXPECT_EQ(weights("none"), weights("zero"));
  EXPECT_NE(weights("none"), weights("all"));
  const auto activations_GiB = [&](const std::string& more) {
    const std::string output = satin(tiny("dry", more + " --dry-run")).output;
    const size_t at = output.find("\n  activations ");
    return at == std::string::npos ? 0.0 : std::stod(output.substr(at + 14));
  };
  EXPECT_GT(activations_GiB(branch + "1"), activations_GiB(branch + "0"));
}

TEST_F(Cli, HiddenStatesAreDistilled) {
  expect(satin(tiny("hidden", "loss.hidden.weight=2")), 0, {});
  std::ifstream metrics(dir / "hidden/metrics.jsonl");
  std::string line;
  std::getline(metrics, line);
  const auto entry = nlohmann::json::parse(line);
  EXPECT_GT(entry["hidden"].get<double>(), 0);
  EXPECT_NEAR(entry["loss"].get<double>(), entry["kd"].get<double>() + 2 * entry["hidden"].get<double>(), 1e-5);
  expect(satin(tiny("dry", "loss.hidden.weight=2 --dry-run")), 0, {"\n  hidden "});
  expect(satin(tiny("x", "loss.hidden.weight=2 loss.neighbourhood.rate=0 teacher.cache=" + dir.path().string())), 2,
         {"loss.hidden.weight", "teacher.cache"});
  fs::create_directory(dir / "deep");  // of whom the dry run looks at the shape alone
  std::string config = test::read_file(quick / "teacher/config.json");
  const std::string layers = "\"num_hidden_layers\": ";
  const size_t at = config.find(layers);
  ASSERT_NE(at, std::string::npos);
  test::write_file(dir / "deep/config.json", config.insert(at + layers.size(), "1"));
  expect(satin(tiny("x", "loss.hidden.weight=2 --dry-run teacher.path=" + (dir / "deep").string())), 2,
         {"loss.hidden", "model.path", "teacher.path", "layers of hidden size"});
}

}  // namespace
}  // namespace satin
