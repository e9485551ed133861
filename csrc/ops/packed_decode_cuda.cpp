#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "kernels/packed_matmul.h"
#include "ops/packed_decode.h"

namespace satin::ops {

int compute_capability(at::Device device) {
  const cudaDeviceProp* properties = at::cuda::getDeviceProperties(device.index());
  return 10 * properties->major + properties->minor;
}

at::Tensor packed_decode(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias) {
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor y = at::empty({x.size(0), weight.shape.num_rows}, x.options());
  const auto row_bytes = [](const at::Tensor& t) { return static_cast<int64_t>(t.itemsize()) * t.size(1); };
  const int64_t step = x.scalar_type() == at::kHalf ? kernels::kMostHalfRows : kernels::kMostDecodeRows;
  for (int64_t first = 0; first < x.size(0); first += step)
    kernels::packed_decode_cuda(
        {.w = weight.matrix(),
         .dtype = x.scalar_type() == at::kHalf ? kernels::Half::kFloat16 : kernels::Half::kBFloat16,
         .num_rows = static_cast<int>(std::min(step, x.size(0) - first)),
         .x = static_cast<const char*>(x.const_data_ptr()) + first * row_bytes(x),
         .y = static_cast<char*>(y.mutable_data_ptr()) + first * row_bytes(y),
         .bias = bias.defined() ? bias.const_data_ptr() : nullptr,
         .residual = nullptr},
        c10::cuda::getCurrentCUDAStream());
  return y;
}

}  // namespace satin::ops
