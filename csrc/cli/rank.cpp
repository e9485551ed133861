#include "cli/rank.h"

#include <ATen/DeviceAccelerator.h>

#include <cstdlib>
#include <map>

#include "cli/version.h"
#include "config/config.h"
#include "core/error.h"
#include "core/log.h"
#include "dist/agreement.h"
#include "dist/launch.h"
#include "dist/spawn.h"
#include "ops/device.h"

namespace satin::cli {
namespace {
namespace fs = std::filesystem;

/// This rank's GPU, made the current one; or the CPU.
at::Device own_device(const std::string& name, const dist::Launch& launch) {
  const at::Device device = ops::resolve_device(name);
  if (!device.is_cuda()) return device;
  const int64_t found = at::accelerator::deviceCount();
  // Slurm may show each task its own GPU only.
  const int64_t index = launch.launcher == "srun" && found == 1 ? 0 : launch.local_rank;
  if (index >= found)
    throw UserError(cat(launch.text(true), ": expected a GPU for each process of this host, found ", found));
  at::accelerator::setDeviceIndex(static_cast<c10::DeviceIndex>(index));
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

/// What must be the same everywhere.
std::map<std::string, std::string> facts_of(const RankInputs& inputs) {
  std::map<std::string, std::string> facts;
  facts["program"] = cat(version_text(), ", ", dist::file_fact("/proc/self/exe"));
  facts["configuration"] = inputs.configuration;
  const auto add_file = [&](const fs::path& path) { facts["file " + path.string()] = dist::file_fact(path); };
  for (const fs::path& path : inputs.files) add_file(path);
  for (const fs::path& folder : inputs.folders) {
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
      if (at->is_regular_file(error)) add_file(at->path());
  }
  return facts;
}

}  // namespace

RankInputs inputs_of(const config::Config& config) {
  RankInputs inputs{config.train.device, config.parallel.timeout_s, config::dump(config), {}, {}};
  for (const auto& source : config.data.train) inputs.files.emplace_back(source.path);
  for (const auto& source : config.data.valid) inputs.files.emplace_back(source.path);
  for (const auto& folder : {config.model.path, config.model.quantized, config.teacher.path, config.teacher.cache})
    if (!folder.empty()) inputs.folders.emplace_back(folder);
  return inputs;
}

void add_gpus_option(CLI::App& command, int64_t& gpus) {
  command
      .add_option("--gpus", gpus,
                  "processes on this host, one a GPU (on the CPU, that many of them); across hosts use torchrun, srun "
                  "or mpirun")
      ->check(CLI::Range(1, 1024));
}

void start_ranks(const std::string& device, int64_t gpus) {
  if (gpus == 1 || dist::is_spawned()) return;
  if (const dist::Launch launch = dist::detect_launch(); launch.size > 1)
    throw UserError(cat("--gpus ", gpus, ": ", launch.launcher, " has started ", launch.size,
                        " processes already: leave --gpus out"));
  const int64_t found = ops::resolve_device(device).is_cuda() ? at::accelerator::deviceCount() : gpus;
  if (found < gpus)
    throw UserError(cat("--gpus ", gpus, ": this host has ", found, " (see nvidia-smi and CUDA_VISIBLE_DEVICES)"));
  std::exit(dist::spawn(gpus));
}

void as_rank(const RankInputs& inputs,
             const std::function<void(std::shared_ptr<dist::Communicator>, dist::Watchdog&)>& work) {
  const dist::Launch launch = dist::detect_launch();
  if (launch.rank > 0) set_background(cat("[rank ", launch.rank, "]"));
  const at::Device device = own_device(inputs.device, launch);
  const auto world = dist::join(launch, device, inputs.timeout_s);
  dist::Watchdog watchdog(launch, world, inputs.timeout_s);
  watchdog.pause();
  watchdog.guard([&] {
    if (launch.size > 1) {
      for (const std::string& line : world->gather(launch.text(device.is_cuda()))) log_info(line);
      dist::check_agreement(*world, launch.host, facts_of(inputs));
    }
    work(world, watchdog);
    watchdog.pause();
    world->barrier();  // rank 0 may have finished the run alone; groups of GPUs are taken down by all together
  });
}

}  // namespace satin::cli
