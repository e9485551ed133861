// The program as a user meets it: commands, exit codes, messages, files.
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "support/test_support.h"

namespace satin {
namespace {

namespace fs = std::filesystem;
using test::ProcessResult;

class Cli : public testing::Test {
 protected:
  test::TempDir dir;
  fs::path quick = test::source_dir() / "configs/quickstart";

  ProcessResult satin(const std::string& arguments) {
    const char* binary = std::getenv("SATIN_BINARY");
    return test::run(std::string(binary ? binary : (test::source_dir() / "build/release/satin").string()) + " " +
                     arguments);
  }
  /// A short run of the shipped recipe into dir/<name>.
  std::string tiny(const std::string& name, const std::string& more = "") {
    return "train " + (quick / "qat-smoothness.yaml").string() + " train.output_dir=" + (dir / name).string() +
           " train.device=cpu train.max_steps=6 train.sequence_length=64 train.micro_batch_size=4 "
           "logging.every_n_steps=1 eval.limit=4"
           " data.cache_dir=" +
           (dir / "cache").string() + " " + more;
  }
  void expect(const ProcessResult& result, int code, const std::vector<std::string>& texts) {
    EXPECT_EQ(result.exit_code, code) << result.output;
    for (const auto& text : texts)
      EXPECT_NE(result.output.find(text), std::string::npos) << text << "\n--- in ---\n" << result.output;
  }
  std::string weights(const std::string& run) {
    return test::read_file(dir / run / "checkpoints/step-6/model.safetensors");
  }
};

TEST_F(Cli, EveryCommandHasHelpWithAnExample) {
  expect(satin("--version"), 0, {"satin 0.", "torch 2.11", "CUDA"});
  for (const char* command : {"train", "quantize", "eval", "export", "generate", "inspect", "tokenize", "cache-teacher",
                              "report", "bench", "doctor"})
    expect(satin(std::string(command) + " --help"), 0, {"Example: satin " + std::string(command)});
  expect(satin("train --help-config"), 0, {"learning_rate", "group_size", "neighbourhood"});
  expect(satin("doctor"), 0, {"processor", "memory"});
  EXPECT_TRUE(nlohmann::json::accept(satin("doctor --json").output));
}

TEST_F(Cli, ProfileSaysWhereTimeGoes) {
  expect(satin(tiny("p", "--profile")), 0, {"profiled steps 4 to 6"});
  const std::string table = test::read_file(dir / "p/profile.txt");
  for (const char* text : {"3 steps of", "ms/step", "satin::fake_quant", "aten::"})
    EXPECT_NE(table.find(text), std::string::npos) << text << "\n--- in ---\n" << table;
  const auto trace = nlohmann::json::parse(test::read_file(dir / "p/trace.json"));
  EXPECT_GT(trace.at("traceEvents").size(), 100u);
}

TEST_F(Cli, UsageErrorsExitTwo) {
  expect(satin("trian x.yaml"), 2, {});
  expect(satin("train"), 2, {"expected a config file"});
  expect(satin("train " + (dir / "none.yaml").string()), 2, {"none.yaml"});
  test::write_file(dir / "bad.yaml", "model:\n  path: .\n  pth: x\ntrain:\n  max_steps: many\noptimzer: {}\n");
  expect(satin("train " + (dir / "bad.yaml").string()), 2,
         {"bad.yaml:3", "pth", "bad.yaml:5", "bad.yaml:6", "'optimizer'"});
  expect(satin(tiny("x", "quantization.default.bits=9")), 2, {"bits"});
  expect(satin("eval --model " + dir.path().string() + " --data " + (quick / "text/valid.jsonl").string()), 2,
         {"config.json"});
  expect(satin("eval --model " + (quick / "teacher").string() + " --data " + (quick / "text/valid.jsonl").string() +
               " --tasks perplexty"),
         2, {"'perplexity'"});
  expect(satin("export --checkpoint " + (quick / "teacher").string() + " --format hff --output x"), 2, {"'hf'"});
}

TEST_F(Cli, TrainsEvaluatesExportsAndReports) {
  expect(satin(tiny("run", "logging.quantizers_every_n_steps=5")), 0,
         {"lsq_asymmetric", "student as shipped", "equal bit for bit"});
  for (const char* file :
       {"config.yaml", "metrics.jsonl", "log.txt", "report.html", "evaluation.json", "quantization.json",
        "quantizers.jsonl", "checkpoints/latest", "checkpoints/step-6/satin.json", "export/hf/model.safetensors",
        "export/compressed-tensors/config.json", "events.out.tfevents.0.satin"})
    EXPECT_TRUE(fs::exists(dir / "run" / file)) << file;
  std::ifstream lines(dir / "run/metrics.jsonl");
  int num_steps = 0, num_measured = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry.contains("eval")) continue;  // what the shipped model scored
    if (entry.contains("quantizers")) {
      EXPECT_EQ(entry["step"], 5);
      EXPECT_GT(entry["quantizers"]["changed"], 0);
      ++num_measured;
      continue;
    }
    for (const char* key : {"step", "tokens", "loss", "kd", "lr", "grad_norm", "tokens_per_second", "memory"})
      EXPECT_TRUE(entry.contains(key)) << key;
    EXPECT_EQ(entry["step"], ++num_steps);
  }
  EXPECT_EQ(num_steps, 6);
  EXPECT_EQ(num_measured, 1);
  EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "run/quantizers.jsonl"))["layers"].size(), 28u);

  expect(satin(tiny("run")), 2, {"already holds a run", "--resume auto"});
  expect(satin(tiny("run", "--resume auto")), 0,
         {"resuming from"});  // finished: only what follows training is done again

  // The checkpoint, both exports and the library agree on the perplexity.
  std::vector<double> perplexities;
  for (const char* model : {"checkpoints/step-6", "export/hf", "export/compressed-tensors"}) {
    expect(satin("eval --device cpu --model " + (dir / "run" / model).string() + " --data " +
                 (quick / "text/valid.jsonl").string() + " --sequence-length 64 --limit 4 --json " +
                 (dir / "eval.json").string()),
           0, {"protocol"});
    perplexities.push_back(nlohmann::json::parse(test::read_file(dir / "eval.json"))["perplexity"]);
  }
  EXPECT_EQ(perplexities[0], perplexities[1]);
  EXPECT_EQ(perplexities[0], perplexities[2]);

  const auto found =
      nlohmann::json::parse(satin("inspect --json " + (dir / "run/export/compressed-tensors").string()).output);
  EXPECT_EQ(found["kind"], "compressed-tensors");
  EXPECT_EQ(found["bits"], 2.0);
  EXPECT_NEAR(found["effective_bits"].get<double>(), 2 + 18 / 64.,
              1e-9);  // a 16-bit scale and a 2-bit zero point a group
  expect(satin("generate --device cpu --max-new-tokens 5 --prompt 'My dear' --model " +
               (dir / "run/export/compressed-tensors").string()),
         0, {"My dear"});
  expect(satin("export --checkpoint " + (dir / "run/checkpoints/step-6").string() +
               " --format compressed-tensors --output " + (dir / "again").string() + " --data " +
               (quick / "text/valid.jsonl").string()),
         0, {"perplexity before", "perplexity after"});
  expect(satin("report " + (dir / "run").string() + " --output " + (dir / "r.html").string()), 0, {});
}

TEST_F(Cli, EveryKindOfSchemeIsEvaluatedAsItWasTrained) {
  const auto perplexity = [&](const std::string& model) {
    expect(satin("eval --device cpu --model " + model + " --data " + (quick / "text/valid.jsonl").string() +
                 " --sequence-length 256 --limit 4 --json " + (dir / "eval.json").string()),
           0, {"protocol"});
    return nlohmann::json::parse(test::read_file(dir / "eval.json"))["perplexity"].get<double>();
  };
  const std::vector<std::string> schemes = {
      "quantization.default.method=onebit quantization.default.bits=1 quantization.default.group_size=-1",
      "quantization.default.method=lwc quantization.default.bits=3 quantization.kv_cache=int4",
      "quantization.default.group_size=0 quantization.default.activations=int8_static",
      "'quantization.overrides=[{match: \"*embed_tokens\", method: lsq, bits: 4}]' quantization.damping=1e-4 "
      "quantization.default.init=weighted_mse quantization.fake_quant_after_n_steps=2 "
      "'quantization.hardening=[{bits: 8, until: 0.7}]'",
      "quantization.default.method=bitnet quantization.default.bits=1.58 quantization.default.activations=int8 "
      "'export.formats=[compressed-tensors]'"};
  for (size_t i = 0; i < schemes.size(); ++i) {
    const std::string run = "s" + std::to_string(i);
    const auto trained = satin(tiny(run, "export.formats=[] " + schemes[i]));
    expect(trained, 0, {"student as shipped"});
    const double shipped =
        nlohmann::json::parse(test::read_file(dir / run / "evaluation.json"))["student"]["valid"]["perplexity"];
    EXPECT_EQ(perplexity((dir / run / "checkpoints/step-6").string()), shipped) << schemes[i];
    if (i == 3)
      expect(trained, 0, {"step 3: quantization begins with at least 8 bits", "step 6: quantization goes on"});
    if (i == 4) EXPECT_EQ(perplexity((dir / run / "export/compressed-tensors").string()), shipped);
  }
  // What a format has no place for is refused before training.
  expect(satin(tiny("no", schemes[0])), 2, {"second value vector", "exactly: none"});
  expect(satin(tiny("no", "quantization.default.activations=int8 'export.formats=[hf]'")), 2,
         {"8-bit activations", "exactly: compressed-tensors"});
  expect(satin(tiny("no", "quantization.fake_quant_after_n_steps=6")), 2, {"fewer than the run's 6 steps"});
  const std::string coarse = "generate --device cpu --max-new-tokens 5 --prompt 'My dear' --model " +
                             (quick / "teacher").string() + " --kv-cache ";
  expect(satin(coarse + "int4"), 0, {"My dear"});
  expect(satin(coarse + "int3"), 2, {"--kv-cache: expected none, int8 or int4"});
}

// A checkpoint between two stages belongs to the first: what the second begins with is made again on resuming.
TEST_F(Cli, ResumesAtTheBorderOfAStage) {
  const std::string stages =
      "export.formats=[] data.valid=[] checkpoint.every_n_steps=1 checkpoint.keep=9 "
      "quantization.fake_quant_after_n_steps=2 quantization.default.activations=int8_static "
      "'quantization.hardening=[{bits: 8, until: 0.5}, {bits: 4, until: 0.8}]' ";
  ASSERT_EQ(satin(tiny("whole", stages)).exit_code, 0);
  for (const char* step : {"1", "2", "3", "5"}) {
    const auto resumed = satin(
        tiny(std::string("from-") + step, stages + "--resume " + (dir / "whole/checkpoints/step-").string() + step));
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    EXPECT_EQ(weights(std::string("from-") + step), weights("whole")) << step;
  }
  // Not yet quantizing it is the dense model, afterwards it is not.
  EXPECT_EQ(nlohmann::json::parse(
                satin("inspect --json " + (dir / "whole/checkpoints/step-2").string()).output)["quantized_parameters"],
            0);
  EXPECT_NE(nlohmann::json::parse(
                satin("inspect --json " + (dir / "whole/checkpoints/step-3").string()).output)["quantized_parameters"],
            0);
  expect(satin(tiny("no", "'quantization.hardening=[{bits: 8, until: 0.9}]'")), 2, {"none of the run's 6 steps"});
}

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

TEST_F(Cli, AStartThatFailedDoesNotOccupyTheDirectory) {
  test::write_file(dir / "empty.jsonl", "");
  expect(satin(tiny("again", "data.train.0.path=" + (dir / "empty.jsonl").string())), 2, {"empty.jsonl"});
  EXPECT_TRUE(fs::exists(dir / "again/log.txt"));
  expect(satin(tiny("again")), 0, {"student as shipped"});
  fs::create_directories(dir / "other");
  test::write_file(dir / "other/thesis.txt", "");
  expect(satin(tiny("other")), 2, {"is not empty", "thesis.txt"});
}

TEST_F(Cli, DryRunWritesNothing) {
  expect(satin(tiny("dry", "--dry-run")), 0, {"effective bits", "activations", "optimizer", "teacher", "embeddings"});
  EXPECT_FALSE(fs::exists(dir / "dry"));
}

TEST_F(Cli, BenchMeasuresBesideFloors) {
  const std::string file = (dir / "bench.json").string();
  expect(satin("bench fake_quant --device cpu --only \"bfloat16 [1024\" --json " + file), 0,
         {"group 64", "per row", "floor"});
  const auto found = nlohmann::json::parse(test::read_file(file))["measurements"];
  ASSERT_EQ(found.size(), 21u);  // the copy, then 9 schemes and torch's own operator, forward and backward
  for (size_t i = 1; i < found.size(); ++i) {
    EXPECT_GT(found[i]["us"].get<double>(), 0);
    EXPECT_GT(found[i]["fraction_of_floor"].get<double>(), 0);
  }
  expect(satin("bench step --device cpu"), 0, {"dense", "tokens/s", "dense + "});
  expect(satin("bench stepp"), 2, {"'step'"});
}

TEST_F(Cli, SameSeedSameBitsAndTheSplitIntoMicroBatchesIsRounding) {
  ASSERT_EQ(satin(tiny("a")).exit_code, 0);
  ASSERT_EQ(satin(tiny("b")).exit_code, 0);
  EXPECT_EQ(weights("a"), weights("b"));
  ASSERT_EQ(satin(tiny("c", "train.micro_batch_size=2 train.gradient_accumulation_steps=2")).exit_code, 0);
  const auto loss = [&](const std::string& run) {
    std::ifstream in(dir / run / "metrics.jsonl");
    std::string line, last;
    while (std::getline(in, line))
      if (line.find("\"loss\"") != std::string::npos) last = line;
    return nlohmann::json::parse(last)["loss"].get<double>();
  };
  EXPECT_NEAR(loss("a"), loss("c"), 1e-3 * loss("a"));  // six steps of fp32 at the same draws
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
  expect(satin(tiny("half", "loss.neighbourhood.start=.5")), 0, {"at temperature 2, from step 4\n"});
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
  expect(satin(tiny("walk", branch + "1 loss.neighbourhood.depth=2")), 2,
         {"loss.neighbourhood.depth", "placement branch"});
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

TEST_F(Cli, DivergenceExitsFourAndNamesTheLastCheckpoint) {
  const auto result = satin(tiny(
      "nan",
      "optimizer.learning_rate=1e30 optimizer.clip_grad_norm=0 optimizer.warmup_ratio=0 checkpoint.every_n_steps=1"));
  expect(result, 4, {"diverged at step", "nearest to the cause: ", "Last good checkpoint: "});
}

TEST_F(Cli, BadFilesExitTwo) {
  fs::copy(quick / "teacher", dir / "model", fs::copy_options::recursive);
  const std::string model = " model.path=" + (dir / "model").string();
  const std::string whole = test::read_file(dir / "model/model.safetensors");
  test::write_file(dir / "model/model.safetensors", whole.substr(0, whole.size() / 2));
  expect(satin(tiny("t", model)), 2, {"model.safetensors"});
  test::write_file(dir / "model/model.safetensors", whole);

  auto config = nlohmann::json::parse(test::read_file(dir / "model/config.json"));
  config["vocab_size"] = 100;
  test::write_file(dir / "model/config.json", config.dump());
  expect(satin(tiny("v", model)), 2, {"model.embed_tokens.weight"});
  config["vocab_size"] = 2048;
  config["sliding_window"] = 16;
  config["model_type"] = "mistral";
  test::write_file(dir / "model/config.json", config.dump());
  expect(satin(tiny("s", model)), 2, {"sliding_window"});

  test::write_file(dir / "empty.jsonl", "");
  expect(satin(tiny("e", "data.train.0.path=" + (dir / "empty.jsonl").string())), 2, {"empty.jsonl"});
  test::write_file(dir / "binary.txt", std::string("\0\1\2\3", 4));
  expect(satin(tiny("b", "data.train.0.path=" + (dir / "binary.txt").string())), 2, {"binary.txt"});
  expect(satin(tiny("g", "quantization.overrides=[{match: model.layers.9.*, bits: 4}]")), 2, {"model.layers.9.*"});

  test::write_file(dir / "file", "");
  expect(satin(tiny("file")), 2, {"output_dir"});
}

}  // namespace
}  // namespace satin
