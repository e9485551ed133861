#include "dist/ranks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "core/clock.h"
#include "dist/spawn.h"

namespace satin::test {
namespace {

std::map<std::string, Job>& jobs() {
  static std::map<std::string, Job> instance;
  return instance;
}

/// A copy that was started as a rank runs its job instead of the tests.
struct RunAsRank : testing::EmptyTestEventListener {
  void OnTestProgramStart(const testing::UnitTest&) override {
    const char* name = std::getenv("SATIN_TEST_JOB");
    if (!name) return;
    if (!dist::is_spawned()) prctl(PR_SET_PDEATHSIG, SIGKILL);
    int status = 99;
    try {
      status = jobs().at(name)(dist::detect_launch());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    _exit(status);
  }
};
const bool kRegistered = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new RunAsRank);
  return true;
}();

}  // namespace

RegisterJob::RegisterJob(const std::string& name, Job job) { jobs()[name] = job; }

int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  bind(fd, reinterpret_cast<sockaddr*>(&address), length);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

std::vector<Rank> start(const std::string& job, int size, const std::vector<std::string>& environment) {
  std::vector<Rank> ranks;
  const int port = free_port();
  for (int rank = 0; rank < size; ++rank) {
    std::vector<std::string> variables;
    for (char** at = environ; *at; ++at) variables.emplace_back(*at);
    for (const auto& text :
         {"SATIN_TEST_JOB=" + job, std::string("OMP_NUM_THREADS=1"), std::string("MASTER_ADDR=127.0.0.1"),
          "MASTER_PORT=" + std::to_string(port), "RANK=" + std::to_string(rank), "LOCAL_RANK=" + std::to_string(rank),
          "WORLD_SIZE=" + std::to_string(size), "LOCAL_WORLD_SIZE=" + std::to_string(size)})
      variables.push_back(text);
    variables.insert(variables.end(), environment.begin(), environment.end());
    std::map<std::string, std::string> last;  // a later setting wins
    for (const auto& text : variables) last[text.substr(0, text.find('='))] = text;
    std::vector<char*> pointers;
    for (auto& [name, text] : last) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    char name[] = "rank";
    char* arguments[] = {name, nullptr};
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, pointers.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    ranks.push_back({pid, ends[0]});
  }
  return ranks;
}

std::vector<Ended> wait_all(const std::vector<Rank>& ranks, double deadline_s) {
  std::vector<Ended> ended(ranks.size(), Ended{-1, "", -1});
  const double begin = now_s();
  std::vector<bool> open(ranks.size(), true);
  size_t running = ranks.size();
  const auto drain = [&](size_t i) {
    char buffer[4096];
    pollfd ready{ranks[i].output, POLLIN, 0};
    while (open[i] && poll(&ready, 1, 0) > 0) {
      const ssize_t n = read(ranks[i].output, buffer, sizeof buffer);
      if (n > 0) ended[i].output.append(buffer, static_cast<size_t>(n));
      if (n <= 0) open[i] = false;
    }
  };
  while (running > 0) {
    const bool late = now_s() - begin > deadline_s;
    for (size_t i = 0; i < ranks.size(); ++i) {
      drain(i);
      if (ended[i].after_s >= 0) continue;
      if (late) kill(ranks[i].pid, SIGKILL);
      int status = 0;
      if (waitpid(ranks[i].pid, &status, late ? 0 : WNOHANG) != ranks[i].pid) continue;
      drain(i);
      ended[i].after_s = now_s() - begin;
      if (!late) ended[i].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      --running;
    }
    usleep(2000);
  }
  for (const Rank& rank : ranks) close(rank.output);
  return ended;
}

void run_job(const std::string& job, int size, const std::vector<std::string>& environment) {
  const auto ended = wait_all(start(job, size, environment), 120);
  for (size_t rank = 0; rank < ended.size(); ++rank)
    EXPECT_EQ(ended[rank].status, 0) << job << ", rank " << rank << " of " << size << ":\n" << ended[rank].output;
}

}  // namespace satin::test
