#include "ops/cuda_properties.h"

#include <ATen/cuda/CUDAContext.h>
#include <cuda_runtime_api.h>

#include "core/error.h"

namespace satin::ops {

std::string cuda_name(int index) { return at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index))->name; }

std::string cuda_toolkit_version() { return cat(CUDART_VERSION / 1000, ".", CUDART_VERSION % 1000 / 10); }

}  // namespace satin::ops
