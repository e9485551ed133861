// The device that work runs on: choice, name, memory.
#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/StreamGuard.h>

#include <cstdint>
#include <string>

namespace satin::ops {

/// "auto" (CUDA when there is one), "cpu" or "cuda": the current GPU. Throws UserError when CUDA is asked for and
/// absent, saying why.
c10::Device resolve_device(const std::string& name);
/// "auto" (bfloat16 on CUDA, float32 on the CPU), "float32", "bfloat16", "float64".
c10::ScalarType resolve_compute_dtype(const std::string& name, c10::Device device);

/// TF32 off: fp32 means fp32. Deterministic kernels when asked (an operator without one throws).
void configure_numerics(bool deterministic);

/// While it lives, attention in this process is not cuDNN's, which CUDA would choose in bfloat16: reading on from a
/// cache then differed in the last bit from run to run. For forward passes (flash attention's backward does not
/// repeat).
class RepeatableDecoding {
 public:
  RepeatableDecoding();
  ~RepeatableDecoding();
  RepeatableDecoding(const RepeatableDecoding&) = delete;
  RepeatableDecoding& operator=(const RepeatableDecoding&) = delete;

 private:
  bool before_;
};

/// While it lives, kernels that this thread starts go before those of other streams, which get what they leave free,
/// but for those of high priority (NCCL's).
class ComputesFirst {
 public:
  explicit ComputesFirst(c10::Device gpu);

 private:
  c10::StreamGuard stream_;
};

/// "NVIDIA H100 80GB HBM3", or the number of CPU threads.
std::string device_name(c10::Device device);
/// 90 for sm_90; 0 on the CPU.
int compute_capability(c10::Device device);
/// 0 on the CPU.
int num_multiprocessors(c10::Device device);

/// Bytes that tensors hold now and held at most since the last reset (CUDA; on the CPU: resident memory of the
/// process).
int64_t memory_bytes(c10::Device device);
int64_t peak_memory_bytes(c10::Device device);
/// What the device has (CUDA; on the CPU: the machine's).
int64_t total_memory_bytes(c10::Device device);
void reset_peak_memory(c10::Device device);
/// Waits for all work queued on the device.
void synchronize(c10::Device device);

}  // namespace satin::ops
