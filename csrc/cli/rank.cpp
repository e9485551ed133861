#include "cli/rank.h"

#include <ATen/DeviceAccelerator.h>

#include <filesystem>
#include <map>

#include "cli/version.h"
#include "config/config.h"
#include "core/error.h"
#include "core/log.h"
#include "dist/agreement.h"
#include "dist/launch.h"
#include "ops/device.h"

namespace satin::cli {
namespace {
namespace fs = std::filesystem;

/// This rank's GPU, made the current one; or the CPU.
at::Device own_device(const config::Config& config, const dist::Launch& launch) {
  const at::Device device = ops::resolve_device(config.train.device);
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
std::map<std::string, std::string> facts_of(const config::Config& config) {
  std::map<std::string, std::string> facts;
  facts["program"] = cat(version_text(), ", ", dist::file_fact("/proc/self/exe"));
  facts["configuration"] = config::dump(config);
  const auto add_file = [&](const fs::path& path) { facts["file " + path.string()] = dist::file_fact(path); };
  const auto add_folder = [&](const std::string& folder) {
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
      if (at->is_regular_file(error)) add_file(at->path());
  };
  for (const auto& source : config.data.train) add_file(source.path);
  for (const auto& source : config.data.valid) add_file(source.path);
  for (const auto& folder : {config.model.path, config.teacher.path, config.teacher.cache})
    if (!folder.empty()) add_folder(folder);
  return facts;
}

}  // namespace

void check_gpus(const config::Config& config, int64_t gpus) {
  if (const dist::Launch launch = dist::detect_launch(); launch.size > 1)
    throw UserError(cat("--gpus ", gpus, ": ", launch.launcher, " has started ", launch.size,
                        " processes already: leave --gpus out"));
  if (!ops::resolve_device(config.train.device).is_cuda()) return;
  if (const int64_t found = at::accelerator::deviceCount(); found < gpus)
    throw UserError(cat("--gpus ", gpus, ": this host has ", found, " (see nvidia-smi and CUDA_VISIBLE_DEVICES)"));
}

void as_rank(const config::Config& config,
             const std::function<void(std::shared_ptr<dist::Communicator>, dist::Watchdog&)>& work) {
  const dist::Launch launch = dist::detect_launch();
  if (launch.rank > 0) set_background(cat("[rank ", launch.rank, "]"));
  const at::Device device = own_device(config, launch);
  const auto world = dist::join(launch, device, config.parallel.timeout_s);
  dist::Watchdog watchdog(launch, world, config.parallel.timeout_s);
  watchdog.pause();
  watchdog.guard([&] {
    if (launch.size > 1) {
      for (const std::string& line : world->gather(launch.text(device.is_cuda()))) log_info(line);
      dist::check_agreement(*world, launch.host, facts_of(config));
    }
    work(world, watchdog);
    watchdog.pause();
    world->barrier();  // rank 0 may have finished the run alone; groups of GPUs are taken down by all together
  });
}

}  // namespace satin::cli
