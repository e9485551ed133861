#include "ops/cuda_properties.h"

#include <ATen/cuda/CUDAContext.h>
#include <cuda_runtime_api.h>

#include "core/error.h"

namespace satin::ops {

std::string cuda_name(int index) { return at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index))->name; }

int cuda_compute_capability(int index) {
  const cudaDeviceProp* properties = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
  return 10 * properties->major + properties->minor;
}

int cuda_num_multiprocessors(int index) {
  return at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index))->multiProcessorCount;
}

std::string cuda_toolkit_version() { return cat(CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10); }

}  // namespace satin::ops
