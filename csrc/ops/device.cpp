#include "ops/device.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "core/error.h"
#include "ops/cuda_properties.h"

namespace satin::ops {

/// Of several processes each has made its own current.
static c10::Device current_gpu() { return {c10::kCUDA, at::accelerator::getDeviceIndex()}; }

c10::Device resolve_device(const std::string& name) {
  if (name == "cpu") return c10::kCPU;
  if (name == "auto") return at::hasCUDA() ? current_gpu() : c10::Device(c10::kCPU);
  if (name != "cuda") throw UserError(cat("device: expected auto, cpu or cuda, found '", name, "'"));
  if (!at::hasCUDA())
    throw UserError(
        "device: cuda was asked for, but torch sees no CUDA device (`satin doctor` says what is missing); use cpu or "
        "auto");
  return current_gpu();
}

c10::ScalarType resolve_compute_dtype(const std::string& name, c10::Device device) {
  if (name == "auto") return device.is_cuda() ? c10::kBFloat16 : c10::kFloat;
  if (name == "float32") return c10::kFloat;
  if (name == "bfloat16") return c10::kBFloat16;
  if (name == "float64") return c10::kDouble;
  throw UserError(cat("compute_dtype: expected auto, float32, bfloat16 or float64, found '", name, "'"));
}

void configure_numerics(bool deterministic) {
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
}

RepeatableDecoding::RepeatableDecoding() : before_(at::globalContext().userEnabledCuDNNSDP()) {
  at::globalContext().setSDPUseCuDNN(false);
}
RepeatableDecoding::~RepeatableDecoding() { at::globalContext().setSDPUseCuDNN(before_); }

ComputesFirst::ComputesFirst(c10::Device gpu)
    : stream_(c10::impl::VirtualGuardImpl(gpu.type()).getStreamFromGlobalPool(gpu, /*isHighPriority=*/true)) {}

std::string device_name(c10::Device device) {
  return device.is_cuda() ? cuda_name(device.index()) : cat("CPU, ", at::get_num_threads(), " threads");
}

int compute_capability(c10::Device device) { return device.is_cuda() ? cuda_compute_capability(device.index()) : 0; }

int num_multiprocessors(c10::Device device) { return device.is_cuda() ? cuda_num_multiprocessors(device.index()) : 0; }

int64_t memory_bytes(c10::Device device) {
  if (device.is_cuda()) return at::accelerator::getDeviceStats(device.index()).allocated_bytes[0].current;
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * 4096;
}

int64_t peak_memory_bytes(c10::Device device) {
  if (device.is_cuda()) return at::accelerator::getDeviceStats(device.index()).allocated_bytes[0].peak;
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

int64_t total_memory_bytes(c10::Device device) {
  if (device.is_cuda()) return static_cast<int64_t>(at::accelerator::getMemoryInfo(device.index()).second);
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

void reset_peak_memory(c10::Device device) {
  if (!device.is_cuda()) return;
  at::globalContext().lazyInitDevice(device.type());  // the allocator: there may be no tensor yet
  at::accelerator::resetPeakStats(device.index());
}

void synchronize(c10::Device device) {
  if (device.is_cuda()) at::accelerator::synchronizeDevice(device.index());
}

}  // namespace satin::ops
