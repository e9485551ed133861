#include "dist/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "core/clock.h"
#include "core/error.h"

extern char** environ;

namespace satin::dist {
namespace {

constexpr double kGrace_s = 2;  ///< for the others to end by themselves, saying why
constexpr double kTerm_s = 5;   ///< from SIGTERM to SIGKILL

std::atomic<int> num_signals{0};
std::atomic<int> last_signal{0};
void note(int signal) {
  last_signal = signal;
  ++num_signals;
}

/// Notes SIGTERM and SIGINT while it lives.
struct Noted {
  Noted() {
    struct sigaction action {};
    action.sa_handler = note;
    sigaction(SIGTERM, &action, &old_term);
    sigaction(SIGINT, &action, &old_int);
  }
  ~Noted() {
    sigaction(SIGTERM, &old_term, nullptr);
    sigaction(SIGINT, &old_int, nullptr);
  }
  struct sigaction old_term {
  }, old_int{};
};

std::vector<std::string> own_arguments() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::string> arguments;
  for (size_t begin = 0; begin < all.size(); begin = all.find('\0', begin) + 1)
    arguments.emplace_back(all.c_str() + begin);
  return arguments;
}

std::vector<std::string> environment_of(int64_t rank, int64_t count, int64_t port) {
  std::map<std::string, std::string> variables;
  for (char** at = environ; *at; ++at)
    if (const char* equals = std::strchr(*at, '='))
      variables[std::string(*at, static_cast<size_t>(equals - *at))] = equals + 1;
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  variables.emplace("OMP_NUM_THREADS", std::to_string(std::max<int64_t>(1, cores / count)));  // a user's own stays
  variables["RANK"] = variables["LOCAL_RANK"] = std::to_string(rank);
  variables["WORLD_SIZE"] = variables["LOCAL_WORLD_SIZE"] = std::to_string(count);
  variables["MASTER_ADDR"] = "127.0.0.1";
  variables["MASTER_PORT"] = std::to_string(port);
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  variables["TORCHELASTIC_RESTART_COUNT"] = "0";
  variables["SATIN_LAUNCHER"] = "--gpus";
  std::vector<std::string> list;
  for (const auto& [name, value] : variables) list.push_back(name + "=" + value);
  return list;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (auto& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

pid_t start(int64_t rank, int64_t count, int64_t port) {
  auto arguments = own_arguments(), environment = environment_of(rank, count, port);
  const auto argv = pointers(arguments), envp = pointers(environment);
  const pid_t parent = getpid(), child = fork();
  if (child < 0) throw UserError(cat("--gpus: cannot start rank ", rank, ": ", std::strerror(errno)));
  if (child > 0) return child;
  // The store's threads run in the parent: until exec, only calls that are safe after fork.
  setpgid(0, 0);  // Ctrl-C reaches the parent alone, which passes it on once
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  execve("/proc/self/exe", argv.data(), envp.data());
  _exit(127);
}

struct Child {
  pid_t pid;
  bool running = true;
  int status = 0;
};

/// Takes note of those that have ended; returns those that failed now, in no particular order.
std::vector<size_t> reap(std::vector<Child>& children) {
  std::vector<size_t> failed;
  for (size_t rank = 0; rank < children.size(); ++rank) {
    int status = 0;
    if (!children[rank].running || waitpid(children[rank].pid, &status, WNOHANG) != children[rank].pid) continue;
    children[rank].running = false;
    children[rank].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (children[rank].status != 0) failed.push_back(rank);
  }
  return failed;
}

void send(const std::vector<Child>& children, int signal) {
  for (const Child& child : children)
    if (child.running) kill(child.pid, signal);
}

}  // namespace

bool is_spawned() {
  const char* launcher = std::getenv("SATIN_LAUNCHER");
  return launcher && std::string(launcher) == "--gpus";
}

int spawn(int64_t count) {
  // This process serves the ranks' store, on a port that the system gives: so it outlives any of them.
  c10d::TCPStoreOptions options;
  options.port = 0;
  options.isServer = true;
  options.waitWorkers = false;
  const auto store = c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  const Noted noted;
  std::vector<Child> children;
  for (int64_t rank = 0; rank < count; ++rank) children.push_back({start(rank, count, store->getPort())});

  int first = 0, passed_on = 0;
  double failed_s = 0;
  bool terminated = false, killed = false;
  const auto runs = [](const Child& child) { return child.running; };
  while (std::any_of(children.begin(), children.end(), runs)) {
    for (const size_t rank : reap(children)) {
      const int status = children[rank].status;
      if (status > 128 && !terminated && num_signals == 0)
        std::fprintf(stderr, "satin: rank %zu was ended by signal %d (%s)\n", rank, status - 128,
                     strsignal(status - 128));
      if (failed_s == 0) failed_s = now_s();
      // The watchdogs of the others answer a loss with status 1, and may be faster than its cause.
      if (first == 0 || (first == 1 && !terminated)) first = status;
    }
    if (num_signals != passed_on) {
      passed_on = num_signals;
      send(children, last_signal);
    }
    if (failed_s > 0 && !terminated && now_s() - failed_s > kGrace_s) {
      send(children, SIGTERM);
      send(children, SIGCONT);  // one that is stopped gets the signal only then
      terminated = true;
    }
    if (terminated && !killed && now_s() - failed_s > kGrace_s + kTerm_s) {
      send(children, SIGKILL);
      killed = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return first;
}

}  // namespace satin::dist
