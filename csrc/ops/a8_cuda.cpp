#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/packed_a16.h"
#include "kernels/packed_a8.h"
#include "kernels/packed_pack.h"
#include "ops/a8_kernels.h"
#include "ops/checks.h"

namespace satin::ops {

A8Codes a8_codes(const at::Tensor& x, bool with_values) {
  const c10::cuda::CUDAGuard guard(x.device());
  const int64_t num_rows = x.size(0), num_columns = x.size(1);
  A8Codes found{at::empty({num_rows, kernels::a8_row_bytes(num_columns)}, x.options().dtype(at::kByte)),
                at::empty({num_rows}, x.options().dtype(at::kFloat)), with_values ? at::empty_like(x) : at::Tensor()};
  kernels::a8_codes_cuda({num_rows, num_columns}, kernel_dtype(x.scalar_type()), x.const_data_ptr(),
                         found.codes.mutable_data_ptr<uint8_t>(), found.scales.mutable_data_ptr<float>(),
                         with_values ? found.values.mutable_data_ptr() : nullptr, c10::cuda::getCurrentCUDAStream());
  return found;
}

at::Tensor packed_a8(const A8Codes& x, const PackedWeight& weight, const at::Tensor& bias, at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(x.codes.device());
  at::Tensor y = at::empty({x.codes.size(0), weight.shape.num_rows}, x.scales.options().dtype(dtype));
  kernels::packed_a8_cuda({.w = weight.matrix(),
                           .num_rows = x.codes.size(0),
                           .codes = x.codes.const_data_ptr<uint8_t>(),
                           .scales = x.scales.const_data_ptr<float>(),
                           .dtype = dtype == at::kHalf ? kernels::Half::kFloat16 : kernels::Half::kBFloat16,
                           .y = y.mutable_data_ptr(),
                           .bias = bias.defined() ? bias.const_data_ptr() : nullptr},
                          c10::cuda::getCurrentCUDAStream());
  return y;
}

at::Tensor packed_a16(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias, kernels::A16Tile tile) {
  const c10::cuda::CUDAGuard guard(x.device());
  // A view may begin anywhere; the copy engine reads from multiples of 16 bytes on.
  const at::Tensor rows = reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0 ? x : x.clone();
  at::Tensor y = at::empty({x.size(0), weight.shape.num_rows}, x.options());
  kernels::packed_a16_cuda({.w = weight.matrix(),
                            .num_rows = x.size(0),
                            .x = rows.const_data_ptr(),
                            .y = y.mutable_data_ptr(),
                            .bias = bias.defined() ? bias.const_data_ptr() : nullptr,
                            .tile = tile},
                           c10::cuda::getCurrentCUDAStream());
  return y;
}

void pack_on_cuda(PackedWeight& to, const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero) {
  const c10::cuda::CUDAGuard guard(codes.device());
  kernels::pack_weight_cuda({.shape = to.shape,
                             .codes = codes.const_data_ptr<uint8_t>(),
                             .scales = scale.const_data_ptr<float>(),
                             .zeros = to.zeros.defined() ? zero.const_data_ptr<int32_t>() : nullptr,
                             .scale_dtype = to.matrix().scale_dtype,
                             .words = reinterpret_cast<uint32_t*>(to.words.mutable_data_ptr<int32_t>()),
                             .scale_pairs = to.scales.mutable_data_ptr(),
                             .zero_pairs = to.zeros.defined() ? to.zeros.mutable_data_ptr<uint8_t>() : nullptr},
                            c10::cuda::getCurrentCUDAStream());
}

}  // namespace satin::ops
