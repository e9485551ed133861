// Real processes: a job is a function of this executable that N copies of it run as ranks.
#pragma once
#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "dist/launch.h"

namespace satin::test {

/// A job's body, as one of its ranks: returns the exit status. Registered by name before main.
using Job = int (*)(const dist::Launch& launch);
struct RegisterJob {
  RegisterJob(const std::string& name, Job job);
};

/// One started rank.
struct Rank {
  pid_t pid;
  int output;  ///< read end of its stdout and stderr
};
/// What became of it.
struct Ended {
  int status;  ///< exit code, or 128 + signal; -1: still running at the deadline (and killed)
  std::string output;
  double after_s;  ///< since wait_all began
};

/// Starts `size` ranks of a job over a free port, with further environment variables ("NAME=value").
std::vector<Rank> start(const std::string& job, int size, const std::vector<std::string>& environment = {});
std::vector<Ended> wait_all(const std::vector<Rank>& ranks, double deadline_s);
/// Both; expects status 0 of all.
void run_job(const std::string& job, int size, const std::vector<std::string>& environment = {});
int free_port();

}  // namespace satin::test
