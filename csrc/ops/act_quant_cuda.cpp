// CUDA: kernels on torch's current stream.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/act_quant_checks.h"
#include "ops/anchors.h"
#include "ops/checks.h"

namespace satin::ops {
namespace {

at::Tensor act_quant(const at::Tensor& x, int64_t format) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ActQuantInputs in(x, format);
  at::Tensor out = at::empty_like(in.x);
  kernels::act_quant_cuda(in.format, in.extent, kernel_dtype(x.scalar_type()), in.x.const_data_ptr(),
                          out.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  return out;
}

std::tuple<at::Tensor, at::Tensor> act_quant_codes(const at::Tensor& x, int64_t format) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ActQuantInputs in(x, format);
  at::Tensor codes = in.empty_codes(), scale = in.empty_scale();
  kernels::act_quant_codes_cuda(in.format, in.extent, kernel_dtype(x.scalar_type()), in.x.const_data_ptr(),
                                static_cast<uint8_t*>(codes.mutable_data_ptr()), scale.mutable_data_ptr(),
                                c10::cuda::getCurrentCUDAStream());
  return {codes, scale};
}

at::Tensor act_quant_static(const at::Tensor& x, const at::Tensor& scale, int64_t format) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ActQuantInputs in(x, scale, format);
  at::Tensor out = at::empty_like(in.x);
  kernels::act_quant_static_cuda(in.format, in.extent, kernel_dtype(x.scalar_type()), in.x.const_data_ptr(),
                                 in.scale.const_data_ptr(), out.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  return out;
}

std::tuple<at::Tensor, at::Tensor> act_quant_static_backward(const at::Tensor& grad, const at::Tensor& x,
                                                             const at::Tensor& scale, int64_t format) {
  const c10::cuda::CUDAGuard guard(x.device());
  const ActQuantInputs in(x, scale, format);
  const at::Tensor g = in.checked_grad(grad);
  at::Tensor grad_x = at::empty_like(in.x), grad_scale = at::empty_like(in.scale);
  at::Tensor sums = at::empty({kernels::act_quant_num_sums(in.extent)}, x.options().dtype(at::kDouble));
  kernels::act_quant_static_backward_cuda(in.format, in.extent, kernel_dtype(x.scalar_type()), g.const_data_ptr(),
                                          in.x.const_data_ptr(), in.scale.const_data_ptr(), grad_x.mutable_data_ptr(),
                                          grad_scale.mutable_data_ptr(), sums.mutable_data_ptr<double>(),
                                          c10::cuda::getCurrentCUDAStream());
  return {grad_x, grad_scale.to(scale.scalar_type())};
}

TORCH_LIBRARY_IMPL(satin, CUDA, m) {
  m.impl("act_quant", act_quant);
  m.impl("act_quant_codes", act_quant_codes);
  m.impl("act_quant_static", act_quant_static);
  m.impl("act_quant_static_backward", act_quant_static_backward);
}

}  // namespace

void anchor_act_quant_cuda() {}

}  // namespace satin::ops
