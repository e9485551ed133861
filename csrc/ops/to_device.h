// Small tensors that the host has made.
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::ops {

/// A copy on `device` of a tensor of the host, without waiting for the device; on the CPU the tensor itself.
inline at::Tensor to_device(const at::Tensor& host, const at::Device& device) {
  return device.is_cuda() ? host.pin_memory().to(device, /*non_blocking=*/true) : host.to(device);
}

}  // namespace satin::ops
