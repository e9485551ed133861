// CUDA: kernels on torch's current stream.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/swiglu.h"
#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/layers_checks.h"

namespace satin::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

CUstream_st* stream() { return c10::cuda::getCurrentCUDAStream(); }

std::tuple<at::Tensor, at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, const OptionalTensor& delta,
                                                        const at::Tensor& weight, double eps, at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(x.device());
  const RmsNormInputs in(x, delta, weight, dtype);
  at::Tensor sum = in.delta.defined() ? at::empty_like(in.x) : at::Tensor();
  at::Tensor y = at::empty(in.x.sizes(), in.x.options().dtype(dtype)), rstd = in.empty_rstd();
  kernels::rms_norm_cuda(
      in.extent, eps, kernel_dtype(x.scalar_type()), kernel_dtype(dtype),
      {in.x.const_data_ptr(), in.delta_data(), in.weight.const_data_ptr(),
       sum.defined() ? sum.mutable_data_ptr() : nullptr, y.mutable_data_ptr(), rstd.mutable_data_ptr()},
      stream());
  return {sum, y, rstd};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad,
                                                                 const OptionalTensor& grad_later,
                                                                 const at::Tensor& sum, const at::Tensor& weight,
                                                                 const at::Tensor& rstd, bool with_delta) {
  const c10::cuda::CUDAGuard guard(sum.device());
  const at::ScalarType dtype = grad.scalar_type();
  const RmsNormInputs in(sum, std::nullopt, weight, dtype);
  const at::Tensor g = checked_gradient(grad, sum, dtype);
  const at::Tensor later = grad_later ? checked_gradient(*grad_later, sum, sum.scalar_type()) : at::Tensor();
  at::Tensor grad_x = at::empty_like(in.x), grad_weight = at::empty_like(in.weight);
  at::Tensor grad_delta = with_delta ? at::empty(in.x.sizes(), in.x.options().dtype(dtype)) : at::Tensor();
  at::Tensor partials =
      at::empty({kernels::rms_norm_num_partials_cuda(in.extent), in.extent.num_columns}, in.weight.options());
  kernels::rms_norm_backward_cuda(in.extent, kernel_dtype(sum.scalar_type()), kernel_dtype(dtype),
                                  {g.const_data_ptr(), later.defined() ? later.const_data_ptr() : nullptr,
                                   in.x.const_data_ptr(), in.weight.const_data_ptr(), rstd.const_data_ptr(),
                                   grad_x.mutable_data_ptr(), with_delta ? grad_delta.mutable_data_ptr() : nullptr,
                                   grad_weight.mutable_data_ptr(), partials.mutable_data_ptr()},
                                  stream());
  return {grad_x, grad_delta, grad_weight};
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  const c10::cuda::CUDAGuard guard(gate.device());
  check_alike(gate, up);
  const at::Tensor g = gate.contiguous(), u = up.contiguous();
  at::Tensor y = at::empty_like(g);
  kernels::swiglu_cuda(g.numel(), kernel_dtype(g.scalar_type()), g.const_data_ptr(), u.const_data_ptr(),
                       y.mutable_data_ptr(), stream());
  return y;
}

std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& gate,
                                                   const at::Tensor& up) {
  const c10::cuda::CUDAGuard guard(gate.device());
  check_alike(gate, up);
  const at::Tensor d = checked_gradient(grad, gate, gate.scalar_type()), g = gate.contiguous(), u = up.contiguous();
  at::Tensor grad_gate = at::empty_like(g), grad_up = at::empty_like(g);
  kernels::swiglu_backward_cuda(g.numel(), kernel_dtype(g.scalar_type()), d.const_data_ptr(), g.const_data_ptr(),
                                u.const_data_ptr(), grad_gate.mutable_data_ptr(), grad_up.mutable_data_ptr(), stream());
  return {grad_gate, grad_up};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const c10::cuda::CUDAGuard guard(x.device());
  const RotateInputs in(x, cos, sin);
  at::Tensor y = at::empty_like(in.x);
  kernels::rope_cuda(in.shape, inverse, kernel_dtype(x.scalar_type()), in.x.const_data_ptr(), rope_strides(in.x),
                     in.cos.const_data_ptr(), in.sin.const_data_ptr(), y.mutable_data_ptr(), rope_strides(y), stream());
  return y;
}

TORCH_LIBRARY_IMPL(satin, CUDA, m) {
  m.impl("rms_norm", rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
  m.impl("swiglu", swiglu);
  m.impl("swiglu_backward", swiglu_backward);
  m.impl("rotate", rotate);
}

}  // namespace

void anchor_layers_cuda() {}

}  // namespace satin::ops
