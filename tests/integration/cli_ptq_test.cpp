// satin quantize as a user meets it: every method on the shipped teacher, a kill in the middle, training from the
// result.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli_fixture.h"
#include "core/error.h"

namespace satin {
namespace {

class CliPtq : public Cli {
 protected:
  std::string settings(const std::string& name, const std::string& more) {
    return (quick / "qat.yaml").string() + " train.output_dir=" + (dir / name).string() +
           " data.cache_dir=" + (dir / "cache").string() +
           " train.device=cpu quantization.calibration_sequences=12 train.sequence_length=128 train.micro_batch_size=4 "
           "eval.limit=6 eval.sequence_length=128 'export.formats=[compressed-tensors]' " +
           more;
  }
  std::string quantize(const std::string& name, const std::string& more) { return "quantize " + settings(name, more); }
  double perplexity(const std::string& run) {
    return nlohmann::json::parse(test::read_file(dir / run / "evaluation.json"))["student"]["valid"]["perplexity"];
  }
  std::string model(const std::string& run, int step = 0) {
    return test::read_file(dir / run / cat("checkpoints/step-", step, "/model.safetensors"));
  }
  std::string exported(const std::string& run) {
    return test::read_file(dir / run / "export/compressed-tensors/model.safetensors");
  }
};

TEST_F(CliPtq, EveryMethodAndItsLogOfCosines) {
  struct Case {
    const char *name, *more;
    double most;  ///< of the perplexity of rounding to nearest
  };
  expect(satin(quantize("rtn", "ptq.gradient_cosines=true")), 0, {"block 4 of 4: least cosine"});
  const double nearest = perplexity("rtn");
  for (const Case& c : {
           Case{"gptq", "ptq.method=gptq", 1},
           Case{"awq", "ptq.method=awq", 1.03},
           Case{"lwc", "ptq.method=lwc ptq.objective=layer", 1.03},
           Case{"lgp", "ptq.method=lwc ptq.objective=layer ptq.gradient_ratio=1", 1.03},
           Case{"lwc-block", "ptq.method=lwc ptq.epochs=4 ptq.clip_learning_rate=0.03", 1},
           Case{"lgp-block",
                "ptq.method=lwc ptq.epochs=4 ptq.clip_learning_rate=0.03 "
                "ptq.gradient_ratio=1",
                1},
           Case{"ap", "ptq.method=block_ap ptq.epochs=4", 0.9},
           Case{"levels", "ptq.method=block_ap ptq.epochs=4 ptq.masters=levels", 0.9},
       }) {
    expect(satin(quantize(c.name, std::string(c.more) + " ptq.gradient_cosines=true")), 0,
           {"read back and equal bit for bit"});
    EXPECT_LT(perplexity(c.name), c.most * nearest) << c.name;
    const std::string log = test::read_file(dir / c.name / "layers.jsonl");
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 4) << log;
    const auto line = nlohmann::json::parse(log.substr(0, log.find('\n')));
    EXPECT_EQ(line["layers"].size(), 7u);
    for (const auto& [layer, values] : line["layers"].items())
      for (const char* cosine : {"forward_cosine", "gradient_cosine"}) {
        EXPECT_GT(values[cosine], 0.7) << layer;
        EXPECT_LT(values[cosine], 1) << layer;
      }
    EXPECT_FALSE(fs::exists(dir / c.name / "ptq"));
  }
  EXPECT_EQ(exported("levels"), exported("ap"));  // codes do not depend on where masters are
  EXPECT_NE(model("levels"), model("ap"));
}

TEST_F(CliPtq, ADryRunSaysWhatItWillTakeAndWritesNothing) {
  const std::string settings = quantize("dry", "ptq.method=gptq ptq.gradient_cosines=true --dry-run");
  expect(satin(settings), 0,
         {"model.layers.*.mlp.down_proj", "gptq of 12 sequences of 128 tokens", "streams", "total"});
  EXPECT_FALSE(fs::exists(dir / "dry"));
  EXPECT_FALSE(fs::exists(dir / "cache"));
  expect(satin(settings + " data.train.0.path=nowhere.jsonl"), 2, {"nowhere.jsonl"});
  // Weights take no memory, but their names and shapes are checked.
  fs::copy(quick / "teacher", dir / "deeper");
  auto config = nlohmann::json::parse(test::read_file(dir / "deeper/config.json"));
  config["num_hidden_layers"] = 5;
  test::write_file(dir / "deeper/config.json", config.dump());
  expect(satin(settings + " model.path=" + (dir / "deeper").string()), 2, {"missing: model.layers.4."});
}

TEST_F(CliPtq, TrainingStartsFromTheResultBitForBit) {
  for (const std::string more :
       {"ptq.method=gptq", "ptq.method=awq quantization.default.bits=3",
        "ptq.method=lwc quantization.default.method=lwc",
        "ptq.method=gptq quantization.default.method=ternary quantization.default.bits=1.58"}) {
    SCOPED_TRACE(more);
    for (const char* old : {"ptq", "same", "scales"}) fs::remove_all(dir / old);
    const std::string formats = more.find("ternary") == std::string::npos ? "" : " 'export.formats=[hf]'";
    expect(satin(quantize("ptq", more + formats)), 0, {});
    const std::string start = more + formats + " model.quantized=" + (dir / "ptq/checkpoints/step-0").string();
    const std::string still =
        " train.max_steps=1 optimizer.learning_rate=0 optimizer.zero_point_learning_rate=0 "
        "optimizer.clip_learning_rate=0 optimizer.scale_learning_rate=";
    expect(satin("train " + settings("same", start + still + "0")), 0, {});
    EXPECT_EQ(perplexity("same"), perplexity("ptq"));
    EXPECT_EQ(model("same", 1), model("ptq"));
    if (formats.empty()) {
      EXPECT_EQ(exported("same"), exported("ptq"));
    }
    if (more != "ptq.method=gptq") continue;
    // EfficientQAT's second half: scales alone, end to end.
    expect(satin("train " + settings("scales", start + still + "1e-4 train.max_steps=20")), 0, {});
    EXPECT_LT(perplexity("scales"), perplexity("ptq"));
  }
}

TEST_F(CliPtq, AKillInTheMiddleChangesNoBit) {
  for (const std::string method :
       {"ptq.method=gptq ptq.gradient_cosines=true", "ptq.method=block_ap ptq.epochs=3 ptq.gradient_ratio=0.5"}) {
    SCOPED_TRACE(method);
    for (const char* old : {"whole", "killed"}) fs::remove_all(dir / old);
    expect(satin(quantize("whole", method)), 0, {});
    const char* binary = std::getenv("SATIN_BINARY");
    const std::string command = "exec " + std::string(binary) + " " + quantize("killed", method) + " 2>/dev/null";
    const pid_t child = fork();
    if (child == 0) {
      execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    for (int i = 0; i < 6000 && !fs::exists(dir / "killed/ptq/block-1.safetensors"); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended before it was killed";
    EXPECT_FALSE(fs::exists(dir / "killed/checkpoints"));
    expect(satin(quantize("killed", method)), 2, {"continue it with --resume auto"});
    expect(satin(quantize("killed", method + " ptq.damping=0.5 --resume auto")), 2,
           {"configured differently", "damping"});
    expect(satin(quantize("killed", method + " --resume auto")), 0, {"going on after block "});
    EXPECT_EQ(model("killed"), model("whole"));
    EXPECT_EQ(exported("killed"), exported("whole"));
    const std::string log = test::read_file(dir / "killed/layers.jsonl");
    EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 4);
    expect(satin(quantize("killed", method + " --resume auto")), 0, {"already quantized"});
  }
}

TEST_F(CliPtq, ErrorsSayWhatToDo) {
  const std::string config = (dir / "c.yaml").string();
  test::write_file(config,
                   "model: {path: " + (quick / "teacher").string() +
                       "}\nquantization:\n  default: {method: minmax_asymmetric, bits: 2}\nptq:\n  method: gptq\n"
                       "  gradient_ratio: 1\ntrain: {output_dir: out}\n");
  expect(satin("quantize " + config), 2,
         {"c.yaml:3: quantization.default.method: ptq.method gptq needs lsq_asymmetric, lsq",
          "c.yaml:6: ptq.gradient_ratio: method gptq learns nothing", "gptq reads calibration text; give data.train"});
  expect(satin("quantize " + config + " ptq.method=gpqt"), 2, {"gptq"});
  const std::string start = " model.quantized=" + (quick / "teacher").string() + " train.max_steps=1";
  expect(satin("train " + settings("t", start)), 2, {"model.quantized: expected a checkpoint of satin quantize"});
  expect(satin("train " + settings("t", start + " quantization.fake_quant_after_n_steps=3")), 2,
         {"scales would be made anew"});
  expect(satin(quantize("q", "")), 0, {});
  const std::string from = " model.quantized=" + (dir / "q/checkpoints/step-0").string() + " train.max_steps=1";
  expect(satin("train " + settings("t", from + " quantization.default.bits=3")), 2,
         {"was trained as lsq_asymmetric 2 bits", "expected the quantization section that it was made with"});
}

}  // namespace
}  // namespace satin
