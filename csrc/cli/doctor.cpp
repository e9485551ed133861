// satin doctor: what this machine has and lacks, in words that say what to do.
#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/version.h"
#include "core/error.h"
#include "ops/cuda_properties.h"
#include "report/throughput.h"

namespace satin::cli {
namespace {

struct Finding {
  std::string name;
  std::string state;  ///< ok | note | missing
  std::string text;
  std::string advice;  ///< what to do; empty when all is well
};

std::string gigabytes(double bytes) { return cat(fixed(bytes / (1 << 30), 1), " GiB"); }

std::vector<Finding> examine() {
  std::vector<Finding> findings;
  findings.push_back({"program", "ok", version_text(), ""});
  findings.push_back({"processor", "ok",
                      cat(sysconf(_SC_NPROCESSORS_ONLN), " cores, ", at::get_num_threads(), " threads in use, ",
                          at::get_cpu_capability()),
                      ""});
  const double memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  findings.push_back({"memory", memory < 4e9 ? "note" : "ok", gigabytes(memory),
                      memory < 4e9 ? "small: keep train.micro_batch_size and loss.chunk_tokens low" : ""});
  struct statvfs disk {};
  if (statvfs(".", &disk) == 0) {
    const double free = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
    findings.push_back({"disk", free < 10e9 ? "note" : "ok", cat(gigabytes(free), " free here"),
                        free < 10e9 ? "a checkpoint takes 12 bytes a parameter, checkpoint.keep of them stay" : ""});
  }
  const bool built_with_cuda = ops::cuda_toolkit_version() != "none";
  if (!built_with_cuda)
    findings.push_back({"cuda build", "missing", "this build has no CUDA code",
                        "install a CUDA 13 toolkit (nvcc on PATH), then remove build/release and run scripts/build"});
  if (!at::hasCUDA()) {
    findings.push_back({"gpu", "missing", "torch sees no CUDA device",
                        "training runs on the CPU; for a GPU install NVIDIA's driver (nvidia-smi must list it) and "
                        "check CUDA_VISIBLE_DEVICES"});
  } else if (built_with_cuda) {
    for (int i = 0; i < at::accelerator::deviceCount(); ++i) {
      const auto [free, total] = at::accelerator::getMemoryInfo(static_cast<c10::DeviceIndex>(i));
      const auto peak = report::peak_flops_per_second(ops::cuda_name(i));
      findings.push_back({cat("gpu ", i), "ok",
                          cat(ops::cuda_name(i), ", ", gigabytes(static_cast<double>(free)), " of ",
                              gigabytes(static_cast<double>(total)), " free"),
                          peak ? "" : "its peak is not in the table: MFU will not be shown"});
    }
  }
  return findings;
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto* command = app.add_subcommand("doctor", "what this machine has and lacks, in words that say what to do");
  auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "print JSON");
  command->footer("Example: satin doctor");
  command->callback([as_json] {
    const std::vector<Finding> findings = examine();
    if (*as_json) {
      auto list = nlohmann::json::array();
      for (const auto& f : findings)
        list.push_back({{"name", f.name}, {"state", f.state}, {"text", f.text}, {"advice", f.advice}});
      std::printf("%s\n", nlohmann::json{{"findings", list}}.dump(1).c_str());
      return;
    }
    for (const auto& f : findings) {
      std::printf("%-8s %-11s %s\n", f.state.c_str(), f.name.c_str(), f.text.c_str());
      if (!f.advice.empty()) std::printf("%21s%s\n", "", f.advice.c_str());
    }
  });
}

}  // namespace satin::cli
