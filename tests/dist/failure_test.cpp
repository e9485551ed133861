// A job of real processes loses a rank, at a random point: all others end within the bound and name it.
#include <ATen/ATen.h>
#include <ATen/DeviceAccelerator.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

#include "core/error.h"
#include "core/log.h"
#include "dist/backends.h"
#include "dist/proxy.h"
#include "dist/ranks.h"
#include "dist/watchdog.h"
#include "support/test_support.h"

namespace satin::dist {
namespace {
using test::sleep_s;

constexpr double kTimeout = 2;
constexpr double kSlack = 1;  ///< the machine may be busy

int64_t number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

void enter_own_network();

/// Sums for ever. TEST_LINK_RANK's connections to the store go through TEST_LINK_PORT.
int loop(Launch launch) {
  if (launch.rank == number("TEST_LINK_RANK", -1)) launch.master_port = number("TEST_LINK_PORT", 0);
  if (launch.rank == number("TEST_NETWORK_RANK", -1)) enter_own_network();
  const int64_t culprit = number("TEST_CULPRIT", -1), last = number("TEST_STEP", 1 << 30);
  const std::string what = std::getenv("TEST_WHAT") ? std::getenv("TEST_WHAT") : "";
  const bool on_gpu = number("TEST_ON_GPU", 0) != 0;
  const auto index = static_cast<c10::DeviceIndex>(launch.local_rank);
  const at::Device device = on_gpu ? at::Device(at::kCUDA, index) : at::Device(at::kCPU);
  if (on_gpu) at::accelerator::setDeviceIndex(index);
  set_quiet(true);
  auto group = join(launch, device, 60);
  const auto other_group = group->duplicate();
  Watchdog watchdog(launch, group, kTimeout);
  try {
    watchdog.guard([&] {
      for (int64_t step = 1; step < 1 << 30; ++step) {
        watchdog.step(step);
        if (step == 3) test::write_file(std::filesystem::path(std::getenv("TEST_READY")) / cat(launch.rank), "");
        if (step == last && launch.rank == culprit) {
          if (what == "hang") sleep_s(1000);
          other_group->all_reduce(at::ones({1}, device));  // nobody else comes: its end waits until they know
          if (what == "user error") throw UserError("the disk is full\nsecond line");
          if (what == "diverged") throw DivergedError("loss is nan");
          if (what == "exit") _exit(0);
        }
        if (step == last && what == "all diverge") throw DivergedError("loss is nan");
        at::Tensor tensor = at::ones({number("TEST_NUMEL", 1000)}, device);
        group->all_reduce(tensor).wait();
        if (on_gpu) tensor[0].item<float>();  // stuck here when a rank is lost
        sleep_s(0.005);
      }
    });
  } catch (const UserError&) {
    return 2;
  } catch (const DivergedError&) {
    return 4;
  }
  return 0;
}
const test::RegisterJob kLoop(
    "loop", +[](const Launch& launch) { return loop(launch); });

/// Everybody finishes, rank 0 first; and before that it works alone for longer than the timeout.
int good_end(const Launch& launch) {
  auto group = join(launch, at::kCPU, 30);
  Watchdog watchdog(launch, group, kTimeout);
  if (launch.rank == 0) {
    const Unbounded unbounded(&watchdog);
    sleep_s(1.5 * kTimeout);
  }
  group->barrier();
  if (launch.rank != 0) sleep_s(0.2 * static_cast<double>(launch.rank));
  return 0;
}
const test::RegisterJob kGoodEnd("good_end", good_end);

class Failure : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_gloo()) GTEST_SKIP() << "this build has no Gloo (libgloo-dev)";
  }
  std::vector<test::Rank> start(std::vector<std::string> environment = {}) {
    for (int rank = 0; rank < size_; ++rank) std::filesystem::remove(ready_ / cat(rank));
    environment.push_back("TEST_READY=" + ready_.path().string());
    return test::start("loop", size_, environment);
  }
  /// Somewhere in the first second after all have started.
  void wait_a_while() {
    for (int rank = 0; rank < size_; ++rank)
      for (int i = 0; i < 6000 && !std::filesystem::exists(ready_ / cat(rank)); ++i) sleep_s(0.01);
    sleep_s(std::uniform_real_distribution<double>(0, 1)(random_));
  }

  /// All but `lost` end with 1 in time, in one line that contains `name`.
  void expect_survivors(const std::vector<test::Rank>& ranks, size_t lost, const std::string& name) {
    const auto ended = test::wait_all(ranks, kTimeout + kSlack);
    for (size_t rank = 0; rank < ended.size(); ++rank) {
      if (rank == lost) continue;
      std::printf("rank %zu ended %.2f s after the loss\n", rank, ended[rank].after_s);
      EXPECT_EQ(ended[rank].status, 1) << "rank " << rank << ": " << ended[rank].output;
      EXPECT_NE(ended[rank].output.find(": " + name), std::string::npos)
          << "rank " << rank << ": " << ended[rank].output;
      EXPECT_EQ(1, std::count(ended[rank].output.begin(), ended[rank].output.end(), '\n')) << ended[rank].output;
    }
  }
  void send(int signal, size_t lost, const std::vector<std::string>& environment = {}) {
    for (int trial = 0; trial < 2; ++trial) {
      const auto ranks = start(environment);
      wait_a_while();
      kill(ranks[lost].pid, signal);
      expect_survivors(ranks, lost, cat("rank ", lost, " on "));
    }
  }
  int size_ = 3;
  test::TempDir ready_;
  std::mt19937 random_{std::random_device{}()};
};

TEST_F(Failure, KilledRankIsNamed) { send(SIGKILL, 1); }
TEST_F(Failure, KilledRankZeroIsNamed) { send(SIGKILL, 0); }
TEST_F(Failure, StoppedRankIsNamed) { send(SIGSTOP, 2); }
TEST_F(Failure, StoppedRankZeroIsNamed) { send(SIGSTOP, 0); }

TEST_F(Failure, OfARankWithAGpu) {
  if (!at::hasCUDA() || at::accelerator::deviceCount() < 2) GTEST_SKIP() << "needs two GPUs";
  size_ = 2;
  for (const int signal : {SIGKILL, SIGSTOP})
    for (const size_t lost : {0, 1})
      for (const char* copy_engines : {"1", "0"})
        send(signal, lost, {"TEST_ON_GPU=1", "TEST_NUMEL=4000000", cat("SATIN_COPY_ENGINES=", copy_engines)});
}

TEST_F(Failure, CutLinkToTheStoreIsNoticedOnBothSides) {
  for (int trial = 0; trial < 2; ++trial) {
    const int port = test::free_port();
    test::Proxy proxy(port);
    const auto ranks = start({cat("MASTER_PORT=", port), "TEST_LINK_RANK=1", cat("TEST_LINK_PORT=", proxy.port())});
    wait_a_while();
    proxy.cut();
    const auto ended = test::wait_all(ranks, kTimeout + kSlack);
    for (const size_t rank : {0u, 2u}) {
      EXPECT_EQ(ended[rank].status, 1);
      EXPECT_NE(ended[rank].output.find(": rank 1 on "), std::string::npos) << ended[rank].output;
    }
    EXPECT_EQ(ended[1].status, 1);  // it cannot tell the cut from the end of rank 0, which serves the store
    EXPECT_NE(ended[1].output.find(": rank 0 on "), std::string::npos) << ended[1].output;
  }
}

/// One rank lives in a network of its own, joined to the others' by a virtual cable.
void enter_own_network() {
  const std::filesystem::path ready = std::getenv("TEST_READY");
  if (unshare(CLONE_NEWNET) != 0) throw InternalError("unshare");
  test::write_file(ready / "network", cat(getpid()));
  for (int i = 0; i < 500 && !std::filesystem::exists(ready / "cable"); ++i) sleep_s(0.01);
  const auto made = test::run("ip addr add 10.77.0.2/24 dev satin1 && ip link set satin1 up && ip link set lo up");
  if (made.exit_code != 0) throw InternalError(made.output);
}

TEST_F(Failure, PulledCableIsNoticedOnBothSides) {
  const int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (test::run("ip -V && nsenter -V").exit_code != 0) GTEST_SKIP() << "needs the commands ip and nsenter";
  if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs the right to make network namespaces (CAP_SYS_ADMIN)";
  for (const size_t apart : {0, 0, 1, 1}) {  // rank 0 serves the store
    std::filesystem::remove(ready_ / "network");
    std::filesystem::remove(ready_ / "cable");
    const auto made = test::run(
        "ip link set lo up && ip link add satin0 type veth peer name satin1 && ip addr add 10.77.0.1/24 dev satin0 && "
        "ip link set satin0 up");
    ASSERT_EQ(made.exit_code, 0) << made.output;
    const auto ranks =
        start({cat("TEST_NETWORK_RANK=", apart), apart == 0 ? "MASTER_ADDR=10.77.0.2" : "MASTER_ADDR=10.77.0.1",
               "LOCAL_WORLD_SIZE=2", "LOCAL_RANK=0"});
    for (int i = 0; i < 2000 && test::read_file(ready_ / "network").empty(); ++i) sleep_s(0.01);
    const std::string pid = cat(ranks[apart].pid);
    EXPECT_EQ(test::run("ip link set satin1 netns " + pid).exit_code, 0);
    test::write_file(ready_ / "cable", "");
    wait_a_while();
    EXPECT_EQ(test::run("nsenter -t " + pid + " -n ip link set satin1 down").exit_code, 0);
    const auto ended = test::wait_all(ranks, kTimeout + kSlack);
    for (size_t rank = 0; rank < 3; ++rank) {
      std::printf("rank %zu ended %.2f s after the cut\n", rank, ended[rank].after_s);
      EXPECT_EQ(ended[rank].status, 1) << ended[rank].output;
      bool named = false;  // who is cut off has lost all others alike, and names one
      for (size_t other = 0; other < 3; ++other)
        if ((other == apart) != (rank == apart))
          named = named || ended[rank].output.find(cat(": rank ", other, " on ")) != std::string::npos;
      EXPECT_TRUE(named) << ended[rank].output;
    }
    test::run("ip link del satin0");  // often gone with the other end
  }
  EXPECT_EQ(setns(home, CLONE_NEWNET), 0);
  close(home);
}

struct Event {
  std::string what;
  int status;        ///< of the culprit
  std::string says;  ///< the others, after its name
};
class Culprit : public Failure, public testing::WithParamInterface<size_t> {};

TEST_P(Culprit, ReachesTheOthersAsTheReason) {
  const size_t culprit = GetParam();
  for (const Event& event : {Event{"user error", 2, "at step 17: the disk is full"},
                             Event{"diverged", 4, "at step 17: loss is nan"}, Event{"hang", 1, "at step 17: hangs"}}) {
    const auto ranks = start({cat("TEST_CULPRIT=", culprit), "TEST_STEP=17", "TEST_WHAT=" + event.what});
    const auto ended = test::wait_all(ranks, 20 + kTimeout);  // from the start
    for (size_t rank = 0; rank < ended.size(); ++rank) {
      const std::string output = cat(event.what, ", rank ", rank, ": ", ended[rank].output);
      EXPECT_EQ(ended[rank].status, rank == culprit ? event.status : 1) << output;
      if (rank == culprit) continue;
      EXPECT_NE(output.find(cat(": rank ", culprit, " on ")), std::string::npos) << output;
      EXPECT_NE(output.find(event.says), std::string::npos) << output;
      EXPECT_EQ(output.find("second line"), std::string::npos) << output;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Ranks, Culprit, testing::Values(0, 1));

TEST_F(Failure, WhatAllSeeEndsAllInTheirOwnWords) {
  const auto ended = test::wait_all(start({"TEST_STEP=9", "TEST_WHAT=all diverge"}), 20);
  for (const auto& rank : ended) EXPECT_EQ(rank.status, 4) << rank.output;
}

TEST_F(Failure, GoodEndIsQuiet) {
  for (const auto& rank : test::wait_all(test::start("good_end", 3), 30)) {
    EXPECT_EQ(rank.status, 0);
    EXPECT_EQ(rank.output, "");
  }
}

}  // namespace
}  // namespace satin::dist
