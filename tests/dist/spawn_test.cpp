// --gpus without GPUs: this executable starts copies of itself.
#include "dist/spawn.h"

#include <ATen/ATen.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

#include "core/error.h"
#include "core/interrupt.h"
#include "dist/agreement.h"
#include "dist/backends.h"
#include "dist/ranks.h"
#include "dist/watchdog.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {
using test::sleep_s;

std::string what() { return std::getenv("TEST_WHAT"); }

int run_rank(const Launch& launch) {
  if (launch.launcher != "--gpus" || !launch.store_is_served || !launch.one_host) return 50;
  if (const char* folder = std::getenv("TEST_READY"))
    test::write_file(std::filesystem::path(folder) / cat(getpid()), "");
  if (what() == "deaf") {  // one fails, and the others do not listen
    if (launch.rank == 1) return 7;
    signal(SIGTERM, SIG_IGN);
    sleep_s(1000);
  }
  if (what() == "wait") {
    install_interrupt_handlers();
    while (!interrupt_signal()) sleep_s(0.01);
    sleep_s(0.2);  // saves
    return 3;
  }
  auto group = join(launch, at::kCPU, 30);
  Watchdog watchdog(launch, group, 2);
  watchdog.guard([&] {
    for (int step = 0; step < 20; ++step) {
      watchdog.step(step);
      if (step == 10 && launch.rank == 1 && what() == "kill") raise(SIGKILL);
      if (step == 10 && launch.rank == 1 && what() == "stop") raise(SIGSTOP);
      if (step == 10 && launch.rank == 2 && what() == "diverge") {
        watchdog.fail("loss is nan");
        _exit(4);  // this status counts, not that of those who noticed
      }
      at::Tensor tensor = at::ones({3});
      group->all_reduce(tensor).wait();
      if (tensor[0].item<float>() != 3) _exit(51);
    }
  });
  return 0;
}

int launcher(const Launch& launch) {
  if (is_spawned()) return run_rank(launch);
  return spawn(3);
}
const test::RegisterJob kLauncher("launcher", launcher);

class Spawn : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo (libgloo-dev)";
  }
  /// The launcher, as a process of its own.
  std::vector<test::Rank> begin(const std::string& what) {
    return test::start("launcher", 1, {"TEST_WHAT=" + what, "TEST_READY=" + ready_.path().string()});
  }
  std::vector<pid_t> children() {
    std::vector<pid_t> pids;
    for (int i = 0; i < 2000 && pids.size() < 3; ++i) {
      sleep_s(0.01);
      pids.clear();
      for (const auto& entry : std::filesystem::directory_iterator(ready_.path()))
        pids.push_back(std::stoi(entry.path().filename()));
    }
    EXPECT_EQ(pids.size(), 3u);
    return pids;
  }
  void expect_gone(const std::vector<pid_t>& pids) {
    for (const pid_t pid : pids) {
      for (int i = 0; i < 200 && kill(pid, 0) == 0; ++i) sleep_s(0.01);
      EXPECT_NE(kill(pid, 0), 0) << pid;
    }
  }
  test::TempDir ready_;
};

TEST_F(Spawn, EndsWellWithItsRanks) {
  const auto ended = test::wait_all(begin("work"), 60)[0];
  EXPECT_EQ(ended.status, 0) << ended.output;
}

TEST_F(Spawn, ReturnsTheStatusOfTheRankThatFailed) {
  const auto ended = test::wait_all(begin("diverge"), 60)[0];
  EXPECT_EQ(ended.status, 4) << ended.output;
  EXPECT_NE(ended.output.find("loss is nan"), std::string::npos) << ended.output;
  expect_gone(children());
}

TEST_F(Spawn, SaysWhichRankASignalEnded) {
  const auto ended = test::wait_all(begin("kill"), 60)[0];
  EXPECT_EQ(ended.status, 128 + SIGKILL) << ended.output;
  EXPECT_NE(ended.output.find("rank 1 was ended by signal 9"), std::string::npos) << ended.output;
}

TEST_F(Spawn, LeavesNoStoppedRankBehind) {
  const auto ended = test::wait_all(begin("stop"), 60)[0];
  EXPECT_EQ(ended.status, 1) << ended.output;
  EXPECT_NE(ended.output.find("rank 1 on "), std::string::npos) << ended.output;
  expect_gone(children());
}

TEST_F(Spawn, KillsThoseThatDoNotListen) {
  const auto ranks = begin("deaf");
  const auto pids = children();
  const auto ended = test::wait_all(ranks, 10)[0];
  EXPECT_EQ(ended.status, 7) << ended.output;
  expect_gone(pids);
}

TEST_F(Spawn, PassesSignalsOn) {
  const auto ranks = begin("wait");
  children();
  sleep_s(0.3);
  kill(ranks[0].pid, SIGTERM);
  const auto ended = test::wait_all(ranks, 10)[0];
  EXPECT_EQ(ended.status, 3) << ended.output;
}

TEST_F(Spawn, ChildrenDieWithTheirParent) {
  const auto ranks = begin("wait");
  const auto pids = children();
  kill(ranks[0].pid, SIGKILL);
  test::wait_all(ranks, 10);
  expect_gone(pids);
}

int disagree(const Launch& launch) {
  auto group = join(launch, at::kCPU, 60);
  std::map<std::string, std::string> facts = {{"configuration", "a: 1\nb: 2\nc: 3\n"}, {"program", "satin 1"}};
  check_agreement(*group, "here", facts);
  try {
    if (launch.rank == 2) facts["configuration"] = "a: 1\nb: 20\nc: 30\n";
    check_agreement(*group, cat("host", launch.rank), facts);
    return 1;
  } catch (const UserError& error) {
    const std::string text = error.what();
    if (text.find(
            "rank 2 on host2 differs from rank 0 on host0 in configuration: line 2: 'b: 20' there, 'b: 2' on rank 0") !=
        0)
      throw;
  }
  try {
    facts["configuration"] = "";
    if (launch.rank == 1) facts["file x"] = "absent";
    check_agreement(*group, cat("host", launch.rank), facts);
    return 1;
  } catch (const UserError& error) {
    if (std::string(error.what())
            .find("rank 1 on host1 differs from rank 0 on host0 in file x: 'absent' there, nothing") != 0)
      throw;
  }
  return 0;
}
const test::RegisterJob kDisagree("disagree", disagree);

TEST_F(Spawn, RanksThatDifferAreRefused) { test::run_job("disagree", 3); }

TEST(FileFact, TellsFilesApart) {
  const test::TempDir folder;
  EXPECT_EQ(file_fact(folder / "none"), "absent");
  test::write_file(folder / "a", "123456789");
  EXPECT_EQ(file_fact(folder / "a"), "9 bytes, checksum e3069283");  // CRC-32C's check value
  std::string large(size_t{80} << 20, 'x');
  test::write_file(folder / "b", large);
  const std::string before = file_fact(folder / "b");
  large.back() = 'y';
  test::write_file(folder / "b", large);
  EXPECT_NE(file_fact(folder / "b"), before);
}

}  // namespace
}  // namespace satin::dist
