// A command as one of several processes.
#pragma once
#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/schema.h"
#include "dist/communicator.h"
#include "dist/watchdog.h"

namespace satin::cli {

/// What all ranks of a command must have in common.
struct RankInputs {
  std::string device;  ///< auto, cpu, cuda
  double timeout_s = config::Parallel().timeout_s;
  std::string configuration = {};                               ///< as text; must be equal
  std::vector<std::filesystem::path> files = {}, folders = {};  ///< that are read; all files of both must be equal
};
RankInputs inputs_of(const config::Config& config);

/// The option --gpus N of a command.
void add_gpus_option(CLI::App& command, int64_t& gpus);
/// What --gpus asks for: starts so many copies of this program as ranks on this host, and ends with their status. In a
/// rank, and for one process, it does nothing. UserError when this host has fewer GPUs, or another launcher is at work.
void start_ranks(const std::string& device, int64_t gpus);

/// Runs `work` as the rank that the environment says: meets the others, makes sure that all have the same program and
/// inputs, and watches them. Only rank 0 is heard; warnings of the others carry "[rank 2]". The watchdog starts paused:
/// what precedes the first step takes as long as it takes.
void as_rank(const RankInputs& inputs,
             const std::function<void(std::shared_ptr<dist::Communicator>, dist::Watchdog&)>& work);

}  // namespace satin::cli
