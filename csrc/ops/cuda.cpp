// CUDA: kernels on torch's current stream.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/clip_search_composed.h"

namespace satin::ops {
namespace {

kernels::Dtype kernel_dtype(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return kernels::Dtype::kFloat;
    case at::kBFloat16:
      return kernels::Dtype::kBFloat16;
    case at::kDouble:
      return kernels::Dtype::kDouble;
    default:
      TORCH_CHECK(false, "satin: expected float32, bfloat16 or float64, found ", dtype);
  }
}

/// Values that a kernel reads or writes beside `weight`: fp64 with fp64, else bfloat16 or fp32.
at::ScalarType value_dtype(const at::Tensor& weight, at::ScalarType wanted) {
  if (weight.scalar_type() == at::kDouble) return at::kDouble;
  return wanted == at::kBFloat16 ? at::kBFloat16 : at::kFloat;
}

const void* data_or_null(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

at::Tensor fake_quant(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                      int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding, int64_t dequant_rounding,
                      at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const FakeQuantInputs in(make_grid(kind, bits, group_size, scale_rounding, dequant_rounding), weight, scale,
                           zero_point);
  at::Tensor out = at::empty(in.weight.sizes(), in.weight.options().dtype(value_dtype(weight, dtype)));
  kernels::fake_quant_cuda(in.grid, in.extent, kernel_dtype(in.weight.scalar_type()), in.weight.const_data_ptr(),
                           in.scale.const_data_ptr(), data_or_null(in.zero_point), kernel_dtype(out.scalar_type()),
                           out.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  return out.to(dtype);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quant_backward(const at::Tensor& grad, const at::Tensor& weight,
                                                                   const at::Tensor& scale,
                                                                   const std::optional<at::Tensor>& zero_point,
                                                                   int64_t kind, int64_t bits, int64_t group_size,
                                                                   int64_t scale_rounding) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const FakeQuantInputs in(make_grid(kind, bits, group_size, scale_rounding, 0), weight, scale, zero_point);
  const at::Tensor g = grad.to(value_dtype(weight, grad.scalar_type())).contiguous();
  TORCH_CHECK(g.sizes() == weight.sizes() && g.device() == weight.device(), "fake_quant_backward: expected a gradient ",
              weight.sizes(), " on ", weight.device(), ", found ", g.sizes(), " on ", g.device());
  at::Tensor grad_weight = at::empty_like(in.weight), grad_scale = at::empty_like(in.scale), grad_zero_point;
  if (in.zero_point.defined()) grad_zero_point = at::empty_like(in.zero_point);
  kernels::fake_quant_backward_cuda(
      in.grid, in.extent, kernel_dtype(g.scalar_type()), g.const_data_ptr(), kernel_dtype(in.weight.scalar_type()),
      in.weight.const_data_ptr(), in.scale.const_data_ptr(), data_or_null(in.zero_point),
      grad_weight.mutable_data_ptr(), grad_scale.mutable_data_ptr(),
      grad_zero_point.defined() ? grad_zero_point.mutable_data_ptr() : nullptr, c10::cuda::getCurrentCUDAStream());
  if (grad_zero_point.defined()) grad_zero_point = grad_zero_point.to(zero_point->scalar_type());
  return {grad_weight, grad_scale.to(scale.scalar_type()), grad_zero_point};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quant_codes(const at::Tensor& weight, const at::Tensor& scale,
                                                                const std::optional<at::Tensor>& zero_point,
                                                                int64_t kind, int64_t bits, int64_t group_size,
                                                                int64_t scale_rounding) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const FakeQuantInputs in(make_grid(kind, bits, group_size, scale_rounding, 0), weight, scale, zero_point);
  at::Tensor codes = at::empty(in.weight.sizes(), in.weight.options().dtype(at::kByte));
  at::Tensor stored = at::empty_like(in.scale), zero = at::empty(in.scale.sizes(), codes.options().dtype(at::kInt));
  kernels::fake_quant_codes_cuda(in.grid, in.extent, kernel_dtype(in.weight.scalar_type()), in.weight.const_data_ptr(),
                                 in.scale.const_data_ptr(), data_or_null(in.zero_point),
                                 codes.mutable_data_ptr<uint8_t>(), stored.mutable_data_ptr(),
                                 zero.mutable_data_ptr<int32_t>(), c10::cuda::getCurrentCUDAStream());
  return {codes, stored, zero};
}

std::tuple<at::Tensor, at::Tensor> clip_search(const at::Tensor& weight, int64_t kind, int64_t bits, int64_t group_size,
                                               int64_t scale_rounding) {
  const c10::cuda::CUDAGuard guard(weight.device());
  return clip_search_composed(weight, make_grid(kind, bits, group_size, scale_rounding, 0));
}

TORCH_LIBRARY_IMPL(satin, CUDA, m) {
  m.impl("fake_quant", fake_quant);
  m.impl("fake_quant_backward", fake_quant_backward);
  m.impl("fake_quant_codes", fake_quant_codes);
  m.impl("clip_search", clip_search);
}

}  // namespace

void anchor_cuda() {}

}  // namespace satin::ops
