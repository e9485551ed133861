// What a person does before and around a job on many GPUs: the dry run of one, and the lines of configs/cluster.
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "integration/cli_fixture.h"

namespace satin {
namespace {

TEST_F(Cli, DryRunOfManyGpusSaysWhatEachStrategyTakes) {
  const std::string file = (dir / "plan.json").string();
  const std::string many = "--dry-run train.micro_batch_size=16 --world-size 16 ";
  expect(satin(tiny("dry", many + "--json " + file)), 0,
         {"16 processes on 2 hosts", "1 sequence each in 1 forward", "ddp", "zero1", "zero2", "fsdp", "hybrid",
          "held weights", "exposed communication", "a model, not a measurement", "auto takes ddp", "of 80.000 GiB",
          "in BFloat16"});
  EXPECT_FALSE(fs::exists(dir / "dry"));
  const auto plan = nlohmann::json::parse(test::read_file(file));
  EXPECT_EQ(plan["strategy"], "ddp");
  ASSERT_EQ(plan["strategies"].size(), 5u);
  for (const auto& strategy : plan["strategies"]) {
    int64_t total = 0;
    for (const auto& [name, bytes] : strategy["memory_bytes"].items()) total += bytes.get<int64_t>();
    EXPECT_EQ(total, strategy["total_bytes"]);
    EXPECT_GT(strategy["time"]["tokens_per_second"], 0);
  }
  expect(satin(tiny("dry", "--dry-run --gpus 4")), 0, {"4 processes on 1 host"});
  expect(satin(tiny("dry", many + "--hosts-gpus 4 parallel.strategy=zero2")), 0,
         {"16 processes on 4 hosts", "parallel.strategy: zero2"});
  expect(satin(tiny("dry", many + "--device-memory-gib 0.005")), 0,
         {"auto takes fsdp", "exceeds 92 % of 0.005 GiB", "lower train.micro_batch_size"});
  expect(satin(tiny("dry", many + "--network 100 --host-bus 100")), 0, {"16 processes"});
  expect(satin(tiny("dry", "--dry-run --world-size 16")), 2, {"= 4 sequences, fewer than the 16 processes"});
  expect(satin(tiny("dry", "--dry-run --world-size 12")), 2, {"whole hosts of 8 GPUs", "found 12"});
  expect(satin(tiny("dry", "--dry-run --world-size 0")), 2, {"--world-size"});
  expect(satin(tiny("dry", "--world-size 16")), 2, {"--dry-run"});
}

/// A repository in which scripts/satin dry-runs the small recipe in place of the large one (and evaluates and caches
/// the small model on two CPU processes), and launchers run one process.
class Cluster : public Cli {
 protected:
  /// For the right side of a substitution in bash.
  static std::string escaped(const std::string& path) {
    std::string text;
    for (char c : path) text += c == '/' ? std::string("\\/") : std::string(1, c);
    return text;
  }
  void SetUp() override {
    fs::create_directories(dir / "scripts");
    fs::create_directories(dir / "bin");
    fs::create_directory_symlink(test::source_dir() / "configs", dir / "configs");
    fs::copy_file(test::source_dir() / "scripts/slurm.sbatch", dir / "scripts/slurm.sbatch");
    const std::string quickstart = quick.string();
    test::write_file(dir / "small.jsonl", R"({"text": "It was a bright cold day, and the clocks were striking."})"
                                          "\n");
    script("scripts/satin",
           "echo \"satin $*\" >> calls\nexport OMP_NUM_THREADS=1\n"
           "if [ $1 != train ]; then\n"
           "  args=\"${*//--gpus 8/--gpus 2}\"\n"
           "  args=\"${args//runs\\/llama-8b-2bit\\/export\\/compressed-tensors/" +
               escaped(quickstart + "/teacher") +
               "}\"\n"
               "  args=\"${args//valid.jsonl/small.jsonl}\"\n"
               "  case $1 in eval) exec \"$SATIN_BINARY\" $args --device cpu ;; esac\n"
               "  exec \"$SATIN_BINARY\" $args train.device=cpu train.sequence_length=8 data.valid=[] model.path=" +
               quickstart +
               "/teacher data.train=small.jsonl train.output_dir=run\nfi\n"
               "case \"$*\" in *--dry-run*) ;; *) set -- \"$@\" --dry-run ;; esac\n"
               "exec \"$SATIN_BINARY\" \"$@\" model.path=" +
               quickstart + "/teacher data.train=" + quickstart + "/text/train.jsonl data.valid=" + quickstart +
               "/text/valid.jsonl train.output_dir=" + (dir / "run").string());
    for (const char* launcher : {"srun", "mpirun", "torchrun"})
      script(std::string("bin/") + launcher,
             "echo \"$(basename $0) $*\" >> calls\n"
             "[ -z \"${FAKE_STATUS:-}\" ] || exit $FAKE_STATUS\n"
             "while [ $# -gt 0 ] && [ \"$1\" != scripts/satin ]; do shift; done\nexec \"$@\"");
    script("bin/sbatch", "export SLURM_JOB_ID=7 SLURM_SUBMIT_DIR=$PWD\nexec bash \"$@\"");
    script("bin/scontrol", "echo \"scontrol $*\" >> calls");
  }
  void script(const std::string& name, const std::string& body) {
    test::write_file(dir / name, "#!/usr/bin/env bash\n" + body + "\n");
    fs::permissions(dir / name, fs::perms::owner_all);
  }
  ProcessResult shell(const std::string& line) {
    return test::run("cd " + dir.path().string() + " && export PATH=" + (dir / "bin").string() + ":$PATH" +
                     " SATIN_BINARY=${SATIN_BINARY:-" + (test::source_dir() / "build/release/satin").string() +
                     "} && " + line);
  }
  std::string calls() {
    const std::string text = fs::exists(dir / "calls") ? test::read_file(dir / "calls") : "";
    fs::remove(dir / "calls");
    return text;
  }
};

TEST_F(Cluster, EveryLineOfItsReadmeRuns) {
  std::istringstream readme(test::read_file(test::source_dir() / "configs/cluster/README.md"));
  int num_lines = 0;
  bool is_command = false;
  for (std::string line; std::getline(readme, line);) {
    if (line.starts_with("```")) {
      is_command = line == "```sh";
      continue;
    }
    if (!is_command) continue;
    ++num_lines;
    const bool trains = line.find("satin eval") == std::string::npos && line.find("cache-teacher") == std::string::npos;
    expect(shell(line), 0,
           {trains                                         ? "effective bits"
            : line.find("satin eval") == std::string::npos ? "windows of"
                                                           : "perplexity"});
    EXPECT_NE(calls().find(trains ? "satin train configs/cluster/llama-8b-2bit.yaml" : "--gpus 8"), std::string::npos)
        << line;
  }
  EXPECT_EQ(num_lines, 8);
}

TEST_F(Cluster, TorchrunKnowsItsOptions) {
  SATIN_NEEDS_PYTHON("torch");
  std::istringstream readme(test::read_file(test::source_dir() / "configs/cluster/README.md"));
  for (std::string line; std::getline(readme, line);) {
    if (!line.starts_with("torchrun ")) continue;
    const char* python = std::getenv("SATIN_PYTHON");
    expect(test::run(std::string(python ? python : "python3") +
                     " -c 'import sys; from torch.distributed.run import get_args_parser; a = "
                     "get_args_parser().parse_args(sys.argv[1:]); print(a.nnodes, a.nproc_per_node, a.no_python, "
                     "a.training_script, a.training_script_args[0])'" +
                     line.substr(8)),
           0, {"2 8 True scripts/satin train"});
    return;
  }
  FAIL() << "no torchrun line";
}

TEST_F(Cluster, TheSlurmScriptIsRequeuedWhenGoingOnHelps) {
  expect(test::run("bash -n " + (test::source_dir() / "scripts/slurm.sbatch").string()), 0, {});
  const auto job = [&](const std::string& environment, int status) {
    expect(shell(environment + " FAKE_STATUS=" + std::to_string(status) + " sbatch scripts/slurm.sbatch c.yaml a.b=1"),
           status, {});
    return calls();
  };
  const std::string srun = "srun --kill-on-bad-exit=0 --wait=120 scripts/satin train c.yaml a.b=1 --resume auto\n";
  const std::string requeue = "scontrol requeue 7\n";
  EXPECT_EQ(job("", 0), srun);
  EXPECT_EQ(job("", 3), srun + requeue);
  EXPECT_EQ(job("SLURM_RESTART_COUNT=9", 3), srun + requeue);
  EXPECT_EQ(job("", 2), srun);
  EXPECT_EQ(job("", 4), srun);
  EXPECT_EQ(job("", 1), srun + requeue);
  EXPECT_EQ(job("SLURM_RESTART_COUNT=3", 137), srun);
  expect(shell("sbatch scripts/slurm.sbatch"), 2, {"usage: sbatch"});
}

/// A SIGTERM that reaches the shell too: it waits for the processes and then asks.
TEST_F(Cluster, TheSlurmScriptOutlivesItsSignal) {
  script("bin/srun", "touch started\nsleep 1\nexit 3");
  script("trial",
         "sbatch scripts/slurm.sbatch c.yaml & job=$!\nwhile [ ! -e started ]; do sleep 0.05; done\n"
         "kill -TERM $job\nwait $job");
  expect(shell("./trial"), 3, {"told to stop", "requeued"});
  EXPECT_EQ(calls(), "scontrol requeue 7\n");
}

}  // namespace
}  // namespace satin
