// Several processes train what one does: real processes over loopback, the shipped recipe.
#include <ATen/ATen.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "integration/cli_fixture.h"
#include "io/safetensors.h"

namespace satin {
namespace {

struct Job {
  std::string strategy;
  int ranks;
};

class Parallel : public Cli {
 protected:
  /// `ranks` processes of this host.
  ProcessResult job(int ranks, const std::string& arguments) {
    return test::run(cat("OMP_NUM_THREADS=1 ", std::getenv("SATIN_BINARY"), " ", arguments, " --gpus ", ranks));
  }
  std::vector<double> logged(const std::string& run, const std::string& key) {
    std::vector<double> found;
    std::istringstream lines(test::read_file(dir / run / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const auto entry = nlohmann::json::parse(line); entry.contains(key)) found.push_back(entry[key]);
    return found;
  }
  std::vector<double> losses(const std::string& run) { return logged(run, "loss"); }
  void expect_same_losses(const std::string& run, const std::string& other, double tolerance, size_t count) {
    const std::vector<double> a = losses(run), b = losses(other);
    ASSERT_EQ(a.size(), count) << run;
    ASSERT_EQ(b.size(), count) << other;
    for (size_t i = 0; i < count; ++i) EXPECT_NEAR(a[i], b[i], tolerance) << other << " step " << i + 1;
  }
  /// All of a checkpoint's tensors, the optimizer's too.
  void expect_same_state(const std::string& run, const std::string& other, double tolerance) {
    for (const std::string file : {"model.safetensors", "optimizer.safetensors"}) {
      const io::SafetensorsFile a(dir / run / file), b(dir / other / file);
      ASSERT_EQ(a.tensors().size(), b.tensors().size());
      for (const auto& [name, entry] : a.tensors()) {
        const at::Tensor x = a.tensor(name).to(at::kDouble), y = b.tensor(name).to(at::kDouble);
        ASSERT_EQ(x.sizes(), y.sizes()) << name;
        EXPECT_LE((x - y).abs().max().item<double>(), tolerance) << other << " " << name;
      }
    }
  }
  const std::vector<Job> jobs_ = {{"ddp", 2},   {"ddp", 3},   {"ddp", 4},   {"zero1", 2}, {"zero1", 3}, {"zero1", 4},
                                  {"zero2", 2}, {"zero2", 3}, {"zero2", 4}, {"fsdp", 2},  {"fsdp", 3},  {"fsdp", 4}};
  /// 6 samples a step, 2 or 1 a micro-batch: 4 processes have 2, 1, 2, 1 of them, so that some wait for others.
  const std::string more_ =
      "loss.smoothness.weight=0.5 loss.neighbourhood.rate=0.15 train.gradient_accumulation_steps=6 "
      "train.micro_batch_size=1 train.sequence_length=16 data.valid=[] eval.limit=1 export.formats=[] ";
};

TEST_F(Parallel, EqualsOneProcessInDouble) {
  const std::string twenty = more_ + "train.compute_dtype=float64 train.max_steps=20";
  expect(job(1, tiny("one", twenty)), 0, {});
  for (const auto& [strategy, ranks] : jobs_) {
    const std::string name = cat(strategy, ranks);
    expect(job(ranks, tiny(name, cat(twenty, " parallel.strategy=", strategy))), 0, {});
    expect_same_losses("one", name, 1e-9, 20);
    expect_same_state("one/checkpoints/step-20", name + "/checkpoints/step-20", 1e-9);
  }
}

/// Layers that are not split (a scale a tensor, OneBit), whole copies, stages that calibrate in the middle, branches.
TEST_F(Parallel, EqualsOneProcessWhateverIsTrained) {
  const std::string penalty = "loss.lgr.gradient_ratio=0.3 loss.lgr.start=0 loss.lgr.sequences=4 ";
  const std::map<std::string, std::string> kinds = {
      {"bitnet",
       "quantization.default.method=bitnet quantization.default.bits=1.58 quantization.default.group_size=0 "
       "quantization.default.activations=int8"},
      {"onebit",
       penalty + "quantization.default.method=onebit quantization.default.bits=1 quantization.default.group_size=-1"},
      {"embedding",
       penalty + "'quantization.overrides=[{match: model.embed_tokens, method: lsq, bits: 8, group_size: 64}]'"},
      {"dense",
       penalty +
           "quantization=null loss.kd.weight=0 loss.ce.weight=1 loss.smoothness.weight=0 loss.neighbourhood.rate=0"},
      {"stages",
       "quantization.fake_quant_after_n_steps=2 'quantization.hardening=[{bits: 8, until: 0.6}]' "
       "quantization.default.activations=int8_static quantization.damping=0.001"},
      {"columns",
       "quantization.damping=0.001 'quantization.overrides=[{match: model.layers.*.down_proj, column_bits: [3, 2, "
       "4]}]'"},
      {"branch", "loss.neighbourhood.placement=branch loss.neighbourhood.rate=0.5 loss.hidden.weight=0.1"},
      {"student",
       "loss.neighbourhood.source=student eval.every_n_steps=2 data.valid=" + (quick / "text/valid.jsonl").string()},
      {"teacher", "loss.neighbourhood.rate=0.02"}};  // so few neighbours that a process may draw none
  for (const auto& [name, kind] : kinds) {
    const std::string five = more_ + "train.compute_dtype=float64 train.max_steps=5 " + kind;
    expect(job(1, tiny(name, five)), 0, {});
    expect(job(3, tiny(name + "3", five + " parallel.strategy=fsdp parallel.teacher=split")), 0, {});
    expect_same_losses(name, name + "3", 1e-9, 5);
    expect_same_state(name + "/checkpoints/step-5", name + "3/checkpoints/step-5", 1e-9);
  }
  const std::string checkpointing = more_ +
                                    "train.compute_dtype=float64 train.max_steps=5 loss.neighbourhood.rate=0.02 "
                                    "train.activation_checkpointing=true";
  expect(job(1, tiny("again", checkpointing)), 0, {});
  expect_same_losses("teacher", "again", 0, 5);
  expect_same_state("teacher/checkpoints/step-5", "again/checkpoints/step-5", 0);
  expect(job(3, tiny("again3", checkpointing + " parallel.strategy=fsdp")), 0, {});
  expect_same_losses("teacher", "again3", 1e-9, 5);
}

/// Both ways to say how strong it is; the first sequences, whichever ranks have them, or all, of which some have more.
/// Rounding of 1e-16 is 1e-12 after the difference, and then changes int8 activations: these are compared after a step.
TEST_F(Parallel, TheGradientPenaltyEqualsThatOfOneProcess) {
  struct Case {
    std::string name, settings;
    size_t steps;
    std::vector<Job> jobs;
  };
  const std::vector<Case> cases = {
      {"weight",
       "loss.lgr.weight=0.5 loss.lgr.sequences=4 train.gradient_accumulation_steps=3 train.micro_batch_size=2",
       3,
       {{"ddp", 2}, {"zero2", 3}, {"fsdp", 2}}},
      {"ratio",
       "loss.lgr.gradient_ratio=0.3 loss.lgr.layer=2 train.gradient_accumulation_steps=5",
       3,
       {{"zero1", 3}, {"zero2", 2}, {"fsdp", 3}}},
      {"int8",
       "loss.lgr.gradient_ratio=0.3 loss.lgr.sequences=2 quantization.default.activations=int8 "
       "quantization.kv_cache=int8",
       1,
       {{"fsdp", 2}}}};
  for (const Case& c : cases) {
    const std::string settings =
        cat(more_, "train.compute_dtype=float64 loss.lgr.start=0 train.max_steps=", c.steps, " ", c.settings);
    const std::string checkpoint = cat("/checkpoints/step-", c.steps);
    expect(job(1, tiny(c.name, settings)), 0, {"gradient penalty at layer "});
    for (const double ratio : logged(c.name, "lgr_ratio")) EXPECT_TRUE(ratio > 1e-3 && ratio < 1) << ratio;
    for (const auto& [strategy, ranks] : c.jobs) {
      const std::string name = cat(c.name, "-", strategy, ranks);
      expect(job(ranks, tiny(name, cat(settings, " parallel.strategy=", strategy))), 0, {});
      expect_same_losses(c.name, name, 1e-9, c.steps);
      expect_same_state(c.name + checkpoint, name + checkpoint, 1e-9);
      for (const char* key : {"lgr", "lgr_weight", "lgr_ratio"}) {
        const std::vector<double> one = logged(c.name, key), many = logged(name, key);
        ASSERT_EQ(one.size(), c.steps) << key;
        ASSERT_EQ(many.size(), c.steps) << name << " " << key;
        for (size_t i = 0; i < c.steps; ++i) EXPECT_NEAR(many[i], one[i], 1e-9 * one[i]) << name << " " << key;
      }
    }
  }
}

/// Where time went is told of every process.
TEST_F(Parallel, SaysWhereTimeWent) {
  const ProcessResult result =
      job(2, tiny("times", more_ + "train.max_steps=3 logging.every_n_steps=1 parallel.strategy=zero2"));
  expect(result, 0, {"exposed communication", "mean of 2 processes"});
  std::istringstream lines(test::read_file(dir / "times/metrics.jsonl"));
  int entries = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (!entry.contains("loss")) continue;
    ++entries;
    for (const char* kind : {"compute_ms", "communication_ms", "data_ms"}) {
      const std::vector<double> ranks = entry["ranks"][kind];
      ASSERT_EQ(ranks.size(), 2u);
      EXPECT_NEAR(entry[kind], (ranks[0] + ranks[1]) / 2, 1e-9);
      EXPECT_GE(std::min(ranks[0], ranks[1]), 0) << kind;
    }
    EXPECT_GT(entry["communication_ms"], 0);
  }
  EXPECT_EQ(entries, 3);
  EXPECT_NE(test::read_file(dir / "times/report.html").find("Where the time of a step goes"), std::string::npos);
}

TEST_F(Parallel, EqualsOneProcessInFloat) {
  // At the recipe's learning rate (5e-4) rounding grows to 1e-4 in 10 steps, with another number of threads as well:
  // Adam's first updates have the size of the rate however small the gradient, and a weight that crosses a threshold
  // changes its code.
  const std::string ten = more_ +
                          "train.compute_dtype=float32 train.max_steps=10 optimizer.learning_rate=5e-5 "
                          "optimizer.scale_learning_rate=1e-5";
  expect(job(1, tiny("one", ten)), 0, {});
  for (const auto& [strategy, ranks] : jobs_) {
    const std::string name = cat(strategy, ranks);
    expect(job(ranks, tiny(name, cat(ten, " parallel.strategy=", strategy))), 0, {});
    expect_same_losses("one", name, 1e-5, 10);
  }
}

TEST_F(Parallel, ResumesOnAnotherNumberOfProcesses) {
  const std::string all = more_ + "train.compute_dtype=float64 checkpoint.every_n_steps=3 ";
  expect(job(4, tiny("four", all + "train.max_steps=5 parallel.strategy=fsdp")), 0, {});
  const fs::path checkpoint = dir / "four/checkpoints/step-3";
  ASSERT_TRUE(fs::exists(checkpoint));
  const std::vector<double> expected = losses("four");
  for (const auto& [strategy, ranks] :
       std::vector<Job>{{"fsdp", 1}, {"fsdp", 2}, {"fsdp", 3}, {"ddp", 2}, {"zero1", 4}}) {
    const std::string name = cat("resumed-", strategy, ranks);
    expect(job(ranks, tiny(name, cat(all, "train.max_steps=5 parallel.strategy=", strategy, " --resume ",
                                     checkpoint.string()))),
           0, {});
    const std::vector<double> found = losses(name);
    ASSERT_EQ(found.size(), 2u) << name;
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(found[i], expected[3 + i], 1e-12) << name;
  }
}

/// Two ranks in each of two network namespaces with host names of their own, over a pair of virtual cables.
TEST_F(Parallel, TwoHosts) {
  const std::string id = cat("satin", ::getpid() % 100000);
  const std::string cleanup = cat("ip netns del ", id, "a; ip netns del ", id, "b; true");
  const std::string network = cat(
      "set -e; ip netns add ", id, "a; ip netns add ", id, "b; ip link add ", id, "x netns ", id,
      "a type veth peer name ", id, "y netns ", id, "b; ip -n ", id, "a addr add 10.78.0.1/24 dev ", id, "x; ip -n ",
      id, "b addr add 10.78.0.2/24 dev ", id, "y; for n in a b; do ip -n ", id, "$n link set lo up; done; ip -n ", id,
      "a link set ", id, "x up; ip -n ", id, "b link set ", id, "y up; ip netns exec ", id, "a unshare --uts true");
  if (const ProcessResult made = test::run("(" + network + ")"); made.exit_code != 0) {
    test::run("(" + cleanup + ")");
    GTEST_SKIP() << "needs the right to make network namespaces (CAP_SYS_ADMIN): " << made.output;
  }
  // Codes and scales travel between hosts: of 8 bits first, in a quantized embedding, of a warm start in full
  // precision; and for the gradient penalty.
  const std::string five = more_ +
                           "train.compute_dtype=float64 train.max_steps=5 train.gradient_accumulation_steps=4 "
                           "loss.lgr.gradient_ratio=0.3 loss.lgr.start=0 loss.lgr.sequences=3 "
                           "quantization.fake_quant_after_n_steps=1 "
                           "\"quantization.hardening=[{bits: 8, until: 0.6}]\" "
                           "\"quantization.overrides=[{match: model.embed_tokens, method: lsq, bits: 8}]\"";
  expect(job(1, tiny("one", five)), 0, {});
  for (const std::string strategy : {"hybrid", "fsdp", "ddp"}) {
    std::string script = "status=0; ";
    for (int rank = 0; rank < 4; ++rank)
      script += cat("RANK=", rank, " WORLD_SIZE=4 LOCAL_RANK=", rank % 2, " LOCAL_WORLD_SIZE=2 MASTER_ADDR=10.78.0.1 ",
                    "MASTER_PORT=29500 OMP_NUM_THREADS=1 ip netns exec ", id, rank < 2 ? "a" : "b",
                    " unshare --uts sh -c 'hostname ", rank < 2 ? "one" : "two", "; exec ", std::getenv("SATIN_BINARY"),
                    " ", tiny(strategy, cat(five, " parallel.strategy=", strategy)), "' & pids=\"$pids $!\"; ");
    const ProcessResult result =
        test::run("(" + script + "for pid in $pids; do wait $pid || status=$?; done; exit $status)");
    expect(result, 0, {strategy + ": 4 processes on 2 hosts"});
    expect_same_losses("one", strategy, 1e-9, 5);
    expect_same_state("one/checkpoints/step-5", strategy + "/checkpoints/step-5", 1e-9);
  }
  test::run("(" + cleanup + ")");
}

/// Calibration (on 30 sequences, 4 at a time), evaluation in the middle of training and after it (two batches and a
/// short one): what one process finds, to the bit, of a model that stays as it is.
TEST_F(Parallel, CalibratesAndEvaluatesAsOneProcess) {
  const std::string two =
      "train.max_steps=2 eval.every_n_steps=1 eval.limit=70 optimizer.learning_rate=1e-30 "
      "optimizer.scale_learning_rate=1e-30 optimizer.zero_point_learning_rate=1e-30 "
      "quantization.default.init=weighted_mse quantization.calibration_sequences=30 ";
  const auto live = [&](const std::string& run) {
    std::istringstream lines(test::read_file(dir / run / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);)
      if (const auto entry = nlohmann::json::parse(line); entry["step"] == 1 && entry.contains("eval")) return entry;
    return nlohmann::json();
  };
  expect(job(1, tiny("one", two + "export.formats=[]")), 0, {"calibrated on 30 ", "(70 windows of 256)"});
  ASSERT_FALSE(live("one").is_null());
  for (const auto& [strategy, ranks] : std::vector<Job>{{"ddp", 2}, {"fsdp", 3}}) {
    const ProcessResult result = job(ranks, tiny(strategy, two + "parallel.strategy=" + strategy));
    expect(result, 0, {"student as shipped: perplexity of ", "exported ", "report: "});
    EXPECT_EQ(live(strategy), live("one"));
    EXPECT_EQ(test::read_file(dir / strategy / "checkpoints/step-2/model.safetensors"),
              test::read_file(dir / "one/checkpoints/step-2/model.safetensors"));
    EXPECT_EQ(test::read_file(dir / strategy / "evaluation.json"), test::read_file(dir / "one/evaluation.json"));
  }
}

TEST_F(Parallel, EvalOfEveryTaskEqualsOneProcess) {
  std::string questions, documents;
  for (int i = 0; i < 60; ++i) {
    const std::string sum = cat("<<", i, "+1=", i + 1, ">>", i + 1);
    documents += nlohmann::json{{"text", cat(std::string(i % 7 * 40, 'a'), " so ", sum, " and ", sum)}}.dump() + "\n";
    questions +=
        nlohmann::json{{"good", cat("Once there were ", i, " cats.")}, {"bad", cat("Once cats ", i)}}.dump() + "\n";
  }
  test::write_file(dir / "documents.jsonl", documents);
  test::write_file(dir / "questions.jsonl", questions);
  const std::string teacher = (quick / "teacher").string(), valid = (quick / "text/valid.jsonl").string();
  const std::vector<std::string> calls = {
      "--tasks perplexity --sequence-length 1024 --limit 9 --data " + valid,
      "--tasks smoothness --sequence-length 256 --limit 9 --roots 4 --teacher " + teacher + " --data " + valid,
      "--tasks annotations --data " + (dir / "documents.jsonl").string(),
      "--tasks choice --data " + (dir / "questions.jsonl").string()};
  const auto eval = [&](int ranks, const std::string& call) {
    const fs::path json = dir / cat(ranks, ".json");
    expect(job(ranks, cat("eval --device cpu --model ", teacher, " ", call, " --json ", json.string())), 0, {});
    return test::read_file(json);
  };
  for (const std::string& call : calls) {
    const std::string expected = eval(1, call);
    EXPECT_FALSE(expected.empty());
    EXPECT_EQ(eval(2, call), expected);
  }
}

/// Perturbed copies of each window, in shards of 3; what a job that was killed left out is added by another number.
TEST_F(Parallel, TeacherCacheEqualsOneProcess) {
  std::istringstream lines(test::read_file(quick / "text/train.jsonl"));
  std::string line;
  std::getline(lines, line);
  const std::string text = nlohmann::json::parse(line)["text"];
  test::write_file(dir / "text.jsonl", nlohmann::json{{"text", text.substr(0, 3000)}}.dump() + "\n");
  const auto fill = [&](int ranks, const std::string& name) {
    const std::string run = tiny("x", cat("data.train=", (dir / "text.jsonl").string(), " train.sequence_length=48 ",
                                          "train.micro_batch_size=2 teacher.cache_top_k=40 teacher.copies=2 ",
                                          "teacher.cache=", (dir / name).string()));
    const ProcessResult result = job(ranks, "cache-teacher" + run.substr(std::string("train").size()));
    expect(result, 0, {"2 perturbed copies of each"});
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(dir / name))
      files[entry.path().filename()] = test::read_file(entry.path());
    return files;
  };
  std::string manifest = fill(1, "whole")["manifest.json"];
  const auto split = manifest.find("\"windows_per_shard\": ");
  ASSERT_NE(split, std::string::npos);
  manifest.replace(split, std::string::npos, "\"windows_per_shard\": 3\n}\n");
  for (const std::string name : {"one", "three"}) test::write_file(dir / name / "manifest.json", manifest);
  const auto one = fill(1, "one");
  ASSERT_GT(one.size(), 5u);
  EXPECT_EQ(fill(3, "three"), one);
  for (const char* shard : {"shard-00001.bin", "shard-00004.bin"}) ASSERT_TRUE(fs::remove(dir / "three" / shard));
  EXPECT_EQ(fill(2, "three"), one);
}

/// Whether a format holds a layer is asked of the whole one: three ranks' 22 rows of 64 would not fit.
TEST_F(Parallel, ExportsLayersThatNoProcessHasWhole) {
  expect(
      job(3, tiny("whole", cat(more_, "train.max_steps=1 train.gradient_accumulation_steps=3 parallel.strategy=fsdp ",
                               "export.formats=[gptq]"))),
      0, {"equal bit for bit"});
}

TEST_F(Parallel, RefusesWhatCannotBeShared) {
  expect(job(2, tiny("few", "train.micro_batch_size=1 train.gradient_accumulation_steps=1")), 2,
         {"1 samples", "2 processes"});
}

}  // namespace
}  // namespace satin
