#include "ops/host_value.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace satin::ops {

HostValue::HostValue(const at::Tensor& scalar) {
  const at::NoGradGuard no_grad;
  const c10::Device device = scalar.device();
  host_ = at::empty({}, scalar.options().device(at::kCPU).requires_grad(false).pinned_memory(device.is_cuda()));
  host_.copy_(scalar.detach(), /*non_blocking=*/true);
  if (device.is_cpu()) return;
  copied_.emplace(device.type());
  copied_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

double HostValue::get() const {
  if (copied_) copied_->synchronize();
  return host_.item<double>();
}

}  // namespace satin::ops
