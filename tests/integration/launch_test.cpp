// Jobs as a user starts them: --gpus (on the CPU), torchrun; and what is left of them when a process is lost.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "core/error.h"
#include "integration/cli_fixture.h"

namespace satin {
namespace {
using test::sleep_s;

class Launched : public Cli {
 protected:
  /// A short run in two shares of its batch.
  std::string shared(const std::string& name, const std::string& more = "") {
    return tiny(name, "train.sequence_length=32 eval.limit=1 export.formats=[] parallel.timeout_s=4 " + more);
  }
  static std::string long_run() { return "train.max_steps=100000 "; }
  /// Runs in the background; wait() gives what it wrote and its status.
  void begin(const std::string& arguments) {
    const std::string command = cat("cd ", dir.path().string(), "; ", std::getenv("SATIN_BINARY"), " ", arguments,
                                    " > output 2>&1 & echo $! > pid; wait $!; echo $? > status");
    worker_ = std::thread([command] { test::run("bash -c '" + command + "'"); });
  }
  ProcessResult wait() {
    worker_.join();
    return {std::stoi(test::read_file(dir / "status")), test::read_file(dir / "output")};
  }
  pid_t launcher() { return std::stoi(test::read_file(dir / "pid")); }
  pid_t child(int rank) {
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string environment = test::read_file(entry.path() / "environ");
      const std::string status = test::read_file(entry.path() / "status");
      if (status.find(cat("\nPPid:\t", launcher(), "\n")) != std::string::npos &&
          environment.find(std::string("\0RANK=", 6) + cat(rank)) != std::string::npos)
        return std::stoi(entry.path().filename());
    }
    return -1;
  }
  void wait_for_steps(const std::string& run) {
    for (int i = 0; i < 6000 && test::read_file(dir / run / "metrics.jsonl").empty(); ++i) sleep_s(0.01);
  }
  static size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
  }
  std::thread worker_;
};

TEST_F(Launched, GpusStartsRanksAndOnlyOneSpeaks) {
  const auto two = satin(shared("two", "train.max_steps=2 --gpus 2"));
  expect(two, 0, {"rank 0 of 2 on ", "rank 1 of 2 on ", "(--gpus)", "trained "});
  EXPECT_EQ(count(two.output, "trained "), 1u) << two.output;
  EXPECT_EQ(count(two.output, "rank 1 of 2 on "), 1u) << two.output;
  EXPECT_TRUE(fs::exists(dir / "two/checkpoints/step-2/model.safetensors"));
}

TEST_F(Launched, Torchrun) {
  SATIN_NEEDS_PYTHON("torch");
  const auto result = test::run(cat("OMP_NUM_THREADS=1 ", std::getenv("SATIN_PYTHON"),
                                    " -m torch.distributed.run --no-python --standalone --nproc-per-node 2 ",
                                    std::getenv("SATIN_BINARY"), " ", shared("torchrun", "train.max_steps=2")));
  expect(result, 0, {"rank 1 of 2 on ", "(torchrun)", "trained "});
  EXPECT_EQ(count(result.output, "trained "), 1u) << result.output;
}

TEST_F(Launched, SaysWhatIsWrongWithTheEnvironment) {
  ::setenv("RANK", "1", 1);
  expect(satin(shared("x")), 2, {"WORLD_SIZE is not"});
  ::setenv("WORLD_SIZE", "2", 1);
  ::setenv("LOCAL_RANK", "1", 1);
  ::setenv("LOCAL_WORLD_SIZE", "2", 1);
  ::setenv("MASTER_ADDR", "127.0.0.1", 1);
  ::setenv("MASTER_PORT", "23456", 1);
  expect(satin(shared("x", "--gpus 2")), 2, {"torchrun has started 2 processes already"});
  expect(satin(shared("x", "parallel.timeout_s=1")), 1, {"[rank 1]", "rank 0"});
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
    ::unsetenv(name);
  EXPECT_FALSE(fs::exists(dir / "x"));
}

TEST_F(Launched, RanksWithAnotherConfigurationAreRefused) {
  const auto pair = [&](const std::string& first, const std::string& second) {
    std::string script;
    for (int rank = 0; rank < 2; ++rank)
      script += cat("RANK=", rank, " WORLD_SIZE=2 LOCAL_RANK=", rank, " LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 ",
                    "MASTER_PORT=", 42000 + ::getpid() % 5000, " OMP_NUM_THREADS=1 ", std::getenv("SATIN_BINARY"), " ",
                    rank == 0 ? first : second, " & ");
    return test::run("(" + script + "wait $!; exit $?)");
  };
  const std::string eval = cat("eval --device cpu --limit 1 --model ", (quick / "teacher").string(), " --data ",
                               (quick / "text/valid.jsonl").string(), " --seed ");
  expect(pair(eval + "1", eval + "2"), 2, {"in configuration: line ", "seed=2' there, 'seed=1' on rank 0"});
  expect(
      pair(shared("differ"), shared("differ", "train.seed=7")), 2,
      {"rank 1 on ", " differs from rank 0 on ", "in configuration: line ", "seed: 7' there, '", "seed: 0' on rank 0"});
  EXPECT_FALSE(fs::exists(dir / "differ"));
}

TEST_F(Launched, ASignalEndsAnEvaluation) {
  begin(cat("eval --device cpu --tasks smoothness --sequence-length 1024 --model ", (quick / "teacher").string(),
            " --data ", (quick / "text/valid.jsonl").string(), " --gpus 2"));
  for (int i = 0; i < 3000 && test::read_file(dir / "output").find("window") == std::string::npos; ++i) sleep_s(0.01);
  kill(launcher(), SIGTERM);
  expect(wait(), 3, {"stopped by a signal during evaluation"});
}

TEST_F(Launched, AKilledRankEndsTheJob) {
  for (const int rank : {0, 1}) {
    const std::string run = cat("kill", rank);
    begin(shared(run, long_run() + "--gpus 2"));
    wait_for_steps(run);
    sleep_s(0.5);
    const pid_t lost = child(rank), other = child(1 - rank);
    ASSERT_GT(lost, 0);
    ASSERT_GT(other, 0);
    kill(lost, SIGKILL);
    const auto start = std::chrono::steady_clock::now();
    const auto result = wait();
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 4 + 1);
    expect(result, 128 + SIGKILL,
           {cat("rank ", rank, " was ended by signal 9"), cat(": rank ", rank, " on "), " at step "});
    EXPECT_NE(kill(other, 0), 0);
  }
}

TEST_F(Launched, AKilledRankEndsAnEvaluation) {
  begin(cat("eval --device cpu --tasks smoothness --sequence-length 1024 --model ", (quick / "teacher").string(),
            " --data ", (quick / "text/valid.jsonl").string(), " --json ", (dir / "result.json").string(),
            " --gpus 2"));
  for (int i = 0; i < 3000 && test::read_file(dir / "output").find("window") == std::string::npos; ++i) sleep_s(0.01);
  const pid_t lost = child(1), other = child(0);
  ASSERT_GT(lost, 0);
  kill(lost, SIGKILL);
  const auto start = std::chrono::steady_clock::now();
  const auto result = wait();
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 9);
  expect(result, 128 + SIGKILL, {"rank 1 was ended by signal 9", "the job has lost a rank: rank 1 on "});
  EXPECT_NE(kill(other, 0), 0);
  EXPECT_FALSE(fs::exists(dir / "result.json"));
}

TEST_F(Launched, DivergenceIsTheStatusOfTheJob) {
  expect(
      satin(shared("nan", "optimizer.learning_rate=1e30 optimizer.clip_grad_norm=0 optimizer.warmup_ratio=0 --gpus 2")),
      4, {"diverged at step", "nearest to the cause: "});
}

/// Every step begins a stage: what a stop saves belongs to the one before.
TEST_F(Launched, AStopAtTheBorderOfAStageResumes) {
  std::string stages;
  for (int i = 0; i < 6; ++i) stages += cat(i > 0 ? ", " : "", "{bits: ", 8 - i, ", until: ", (i + 0.9) / 7, "}");
  const std::string settings =
      cat("\"quantization.hardening=[", stages, "]\" train.max_steps=7 train.gradient_accumulation_steps=25 ",
          "train.deterministic=true logging.every_n_steps=1 checkpoint.every_n_steps=0 ");
  expect(satin(shared("whole", settings)), 0, {"with at least 7 bits", "with at least 3 bits"});
  begin(shared("stopped", settings));
  wait_for_steps("stopped");
  kill(launcher(), SIGTERM);
  expect(wait(), 3, {"stopped by signal 15", "everything is saved"});
  EXPECT_FALSE(fs::exists(dir / "stopped/checkpoints/step-7"));
  expect(satin(shared("stopped", settings) + " --resume auto"), 0, {"resuming from "});
  for (const char* file : {"model.safetensors", "optimizer.safetensors"})
    EXPECT_EQ(test::read_file(dir / "whole/checkpoints/step-7" / file),
              test::read_file(dir / "stopped/checkpoints/step-7" / file))
        << file;
}

TEST_F(Launched, ASignalToTheLauncherSavesOnce) {
  begin(shared("stop", long_run() + "--gpus 2"));
  wait_for_steps("stop");
  kill(launcher(), SIGTERM);
  expect(wait(), 3, {"stopped by signal 15", "everything is saved"});
  EXPECT_TRUE(fs::exists(dir / "stop/checkpoints/latest"));
}

}  // namespace
}  // namespace satin
