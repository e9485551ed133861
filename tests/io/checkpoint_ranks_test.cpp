// Checkpoints that several processes write together.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <random>

#include "core/error.h"
#include "dist/backends.h"
#include "dist/ranks.h"
#include "io/checkpoint_writer.h"
#include "io/rank_contents.h"
#include "io/safetensors.h"
#include "support/test_support.h"

namespace satin::io {
namespace fs = std::filesystem;
using test::TempDir;
namespace {

constexpr int kRefused = 3, kLostARank = 7;
const std::vector<std::string> kStrategies = {"ddp", "rows", "first", "hybrid"};

fs::path scratch() { return std::getenv("SCRATCH"); }
std::string setting(const char* name) { return std::getenv(name); }

/// Runs `body`; says what went wrong, and returns a status for it.
int ended(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& error) {
    std::printf("refused: %s\n", error.what());
    return kRefused;
  } catch (const PeerError& error) {
    std::printf("lost: %s\n", error.what());
    return kLostARank;
  }
  return 0;
}

int save_each_strategy(const dist::Launch& launch) {
  const auto ranks = dist::join(launch, at::kCPU, 60);
  for (const auto& strategy : kStrategies) {
    save_checkpoint(scratch() / "sync" / strategy, held_contents(scratch(), 4, strategy, launch.rank, launch.size), 1,
                    *ranks);
    AsyncCheckpointWriter writer(scratch() / "async" / strategy, 5, ranks);
    for (const int64_t step : {3, 4}) {
      const auto contents = held_contents(scratch(), step, strategy, launch.rank, launch.size);
      writer.save(contents);
      for (const auto& tensor : contents.model) tensor.tensor.zero_();  // training goes on
      for (const auto& tensor : contents.optimizer) tensor.tensor.zero_();
    }
    writer.wait();
    verify_checkpoint(scratch() / "async" / strategy / "checkpoints/step-3", "", *ranks);
  }
  return 0;
}
const test::RegisterJob kSave("save_each_strategy", save_each_strategy);

/// Step 1 is small; for step 2, files that rank LIMITED writes may not be large.
int save_over_a_limit(const dist::Launch& launch) {
  const auto ranks = dist::join(launch, at::kCPU, 60);
  const fs::path run = scratch() / "run";
  save_checkpoint(run, checkpoint_contents(scratch(), 1), 1, *ranks);
  if (std::to_string(launch.rank) == setting("LIMITED")) {
    const rlimit limit{100'000, 100'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_IGN);
  }
  const auto contents = held_contents(scratch(), 2, "rows", launch.rank, launch.size);
  if (setting("HOW") == "sync") return ended([&] { save_checkpoint(run, contents, 1, *ranks); });
  AsyncCheckpointWriter writer(run, 1, ranks);
  writer.save(contents);
  return ended([&] { writer.save(contents); });
}
const test::RegisterJob kLimit("save_over_a_limit", save_over_a_limit);

int save_apart(const dist::Launch& launch) {
  const auto ranks = dist::join(launch, at::kCPU, 60);
  const fs::path run = scratch() / (launch.rank == 1 ? "elsewhere" : "run");
  return ended([&] { save_checkpoint(run, held_contents(scratch(), 2, "rows", launch.rank, launch.size), 1, *ranks); });
}
const test::RegisterJob kApart("save_apart", save_apart);

/// A rank without its rows, with others' rows, or with another tensor: a bug, seen by all.
int save_nonsense(const dist::Launch& launch) {
  const auto ranks = dist::join(launch, at::kCPU, 60);
  for (const std::string wrong : {"missing", "overlap", "shape", "name"}) {
    auto contents = held_contents(scratch(), 2, "rows", launch.rank, launch.size);
    CheckpointTensor& embed = contents.model[0];
    if (launch.rank == 1) {
      if (wrong == "missing") embed.tensor = embed.tensor.narrow(0, 0, 1);
      if (wrong == "overlap") embed.first_row -= 1;
      if (wrong == "shape") embed.tensor = embed.tensor.narrow(1, 0, 2);
      if (wrong == "name") embed.name = "embedding";
    }
    try {
      save_checkpoint(scratch() / "run", contents, 1, *ranks);
      std::printf("saved in spite of %s\n", wrong.c_str());
      return 1;
    } catch (const InternalError&) {
    }
  }
  return 0;
}
const test::RegisterJob kNonsense("save_nonsense", save_nonsense);

int save_until_killed(const dist::Launch& launch) {
  const auto ranks = dist::join(launch, at::kCPU, 60);
  const fs::path run = scratch() / "run";
  return ended([&] {
    AsyncCheckpointWriter writer(run, 2, ranks);
    for (int64_t step = std::stoll(setting("FIRST"));; ++step) {
      CheckpointContents contents = checkpoint_contents(scratch(), step, 20'000);
      CheckpointTensor& w = contents.model[0];
      const nn::RowRange rows = nn::rows_of({launch.rank, launch.size}, 20'000);
      w = {"w", w.tensor.narrow(0, rows.first, rows.count), {20'000}, rows.first};
      if (step % 2 == 0)
        save_checkpoint(run, contents, 2, *ranks);
      else
        writer.save(contents);
      writer.wait();
    }
  });
}
const test::RegisterJob kUntilKilled("save_until_killed", save_until_killed);

#define SATIN_NEEDS_GLOO() \
  if (!dist::has_gloo()) GTEST_SKIP() << "this build has no Gloo (libgloo-dev)"

std::string scratch_variable(const TempDir& dir) { return "SCRATCH=" + dir.path().string(); }

void expect_only(const fs::path& checkpoints, std::vector<std::string> names) {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(checkpoints)) found.push_back(entry.path().filename().string());
  std::ranges::sort(found);
  EXPECT_EQ(found, names);
}

}  // namespace

class CheckpointRanks : public testing::TestWithParam<int> {};

TEST_P(CheckpointRanks, WriteTheBytesThatOneProcessWrites) {
  SATIN_NEEDS_GLOO();
  TempDir dir;
  const fs::path alone = save_checkpoint(dir / "alone", held_contents(dir.path(), 4, "ddp", 0, 1), 1);
  const TensorDirectory read_back(alone);
  for (const auto& [name, whole] : whole_tensors(4)) EXPECT_TRUE(read_back.tensor(name).equal(whole)) << name;
  test::run_job("save_each_strategy", GetParam(), {scratch_variable(dir)});
  for (const std::string how : {"sync", "async"})
    for (const auto& strategy : kStrategies) {
      const fs::path saved = dir / how / strategy / "checkpoints/step-4";
      int num_files = 0;
      for (const auto& entry : fs::directory_iterator(alone)) {
        const auto name = entry.path().filename();
        EXPECT_TRUE(test::read_file(saved / name) == test::read_file(entry.path()))
            << how << " " << strategy << " " << name;
        ++num_files;
      }
      EXPECT_EQ(num_files, 6);
      EXPECT_EQ(std::distance(fs::directory_iterator(saved), {}), num_files) << how << " " << strategy;
      verify_checkpoint(saved);
    }
}
INSTANTIATE_TEST_SUITE_P(Sizes, CheckpointRanks, testing::Values(1, 2, 3, 4));

TEST(CheckpointRanksFailure, AFullDiskOfOneIsAllRanksError) {
  SATIN_NEEDS_GLOO();
  for (const int limited : {0, 2})
    for (const std::string how : {"sync", "async"}) {
      TempDir dir;
      const auto ranks = test::wait_all(
          test::start("save_over_a_limit", 3, {scratch_variable(dir), "HOW=" + how, cat("LIMITED=", limited)}), 60);
      for (const auto& rank : ranks) {
        EXPECT_EQ(rank.status, kRefused) << rank.output;
        EXPECT_NE(rank.output.find(cat("refused: rank ", limited, ": cannot write ")), std::string::npos)
            << rank.output;
        EXPECT_NE(rank.output.find("File too large"), std::string::npos) << rank.output;
      }
      expect_only(dir / "run/checkpoints", {"latest", "step-1"});
      EXPECT_EQ(verify_checkpoint(latest_checkpoint(dir / "run").value()).step, 1);
    }
}

TEST(CheckpointRanksFailure, ADirectoryThatIsNotSharedIsRefused) {
  SATIN_NEEDS_GLOO();
  TempDir dir;
  for (const auto& rank : test::wait_all(test::start("save_apart", 2, {scratch_variable(dir)}), 60)) {
    EXPECT_EQ(rank.status, kRefused) << rank.output;
    EXPECT_NE(rank.output.find("rank 1: expected a directory that all ranks share"), std::string::npos) << rank.output;
  }
  expect_only(dir / "run/checkpoints", {});
}

TEST(CheckpointRanksFailure, RowsThatDoNotCoverATensorAreABug) {
  SATIN_NEEDS_GLOO();
  TempDir dir;
  test::run_job("save_nonsense", 3, {scratch_variable(dir)});
}

TEST(CheckpointRanksFailure, OneKilledAtAnyMomentLeavesTheLastCompleteOne) {
  SATIN_NEEDS_GLOO();
  TempDir dir;
  const fs::path run = dir / "run";
  std::mt19937 random(3);
  int64_t last = 0;
  for (int round = 0; round < 6; ++round) {
    const auto started = test::start("save_until_killed", 2, {scratch_variable(dir), cat("FIRST=", last + 1)});
    // Past the start-up: until this round has saved something.
    for (int i = 0; i < 600 && (!latest_checkpoint(run) || read_manifest(*latest_checkpoint(run)).step <= last); ++i)
      usleep(50'000);
    usleep(std::uniform_int_distribution<useconds_t>(0, 200'000)(random));
    const auto killed = static_cast<size_t>(round % 2);
    kill(started[killed].pid, SIGKILL);
    const auto ranks = test::wait_all(started, 60);
    EXPECT_EQ(ranks[killed].status, 128 + SIGKILL) << ranks[killed].output;
    EXPECT_EQ(ranks[1 - killed].status, kLostARank) << ranks[1 - killed].output;
    const fs::path latest = latest_checkpoint(run).value();
    EXPECT_GT(read_manifest(latest).step, last);
    last = read_manifest(latest).step;
    for (const auto& entry : fs::directory_iterator(run / "checkpoints")) {
      if (!entry.path().filename().string().starts_with("step-")) continue;
      const auto step = static_cast<double>(verify_checkpoint(entry.path()).step);
      EXPECT_TRUE(TensorDirectory(entry.path()).tensor("w").eq(step).all().item<bool>()) << entry.path();
    }
  }
  save_checkpoint(run, checkpoint_contents(dir.path(), last + 1), 1);
  expect_only(run / "checkpoints", {"latest", cat("step-", last + 1)});
}

}  // namespace satin::io
