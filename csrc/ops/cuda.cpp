// CUDA: kernels on torch's current stream.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/clip_search.h"
#include "kernels/data_scale.h"
#include "ops/anchors.h"
#include "ops/checks.h"

namespace satin::ops {
namespace {

/// Values that a kernel reads or writes beside `weight`: fp64 with fp64, else bfloat16 or fp32.
at::ScalarType value_dtype(const at::Tensor& weight, at::ScalarType wanted) {
  if (weight.scalar_type() == at::kDouble) return at::kDouble;
  return wanted == at::kBFloat16 ? at::kBFloat16 : at::kFloat;
}

const void* data_or_null(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

std::vector<at::Tensor> quantize(const std::vector<FakeQuantInputs>& inputs, kernels::FakeQuantGrid grid,
                                 at::ScalarType dtype) {
  std::vector<at::Tensor> outs;
  if (inputs.empty()) return outs;
  const at::ScalarType weight_dtype = inputs[0].weight.scalar_type();
  const c10::cuda::CUDAGuard guard(inputs[0].weight.device());
  std::vector<kernels::FakeQuantTask> tasks;
  for (const FakeQuantInputs& in : inputs) {
    outs.push_back(at::empty(in.weight.sizes(), in.weight.options().dtype(value_dtype(in.weight, dtype))));
    tasks.push_back({in.extent, in.grid.group_size, in.weight.const_data_ptr(), in.scale.const_data_ptr(),
                     data_or_null(in.zero_point), outs.back().mutable_data_ptr()});
  }
  kernels::fake_quant_cuda(grid, tasks, kernel_dtype(weight_dtype), kernel_dtype(outs[0].scalar_type()),
                           c10::cuda::getCurrentCUDAStream());
  for (at::Tensor& out : outs) out = out.to(dtype);
  return outs;
}

at::Tensor fake_quant(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                      int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding, int64_t dequant_rounding,
                      at::ScalarType dtype) {
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, group_size, scale_rounding, dequant_rounding);
  return quantize({FakeQuantInputs(grid, weight, scale, zero_point)}, grid, dtype)[0];
}

std::vector<at::Tensor> fake_quant_many(at::TensorList weights, at::TensorList scales, at::TensorList zero_points,
                                        int64_t kind, int64_t bits, at::IntArrayRef group_sizes, int64_t scale_rounding,
                                        int64_t dequant_rounding, at::ScalarType dtype) {
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, 1, scale_rounding, dequant_rounding);
  return quantize(batch_inputs(grid, weights, scales, zero_points, group_sizes), grid, dtype);
}

struct Gradients {
  std::vector<at::Tensor> weights, scales, zero_points;
};

/// Scales' and zero points' gradients in the arithmetic dtype.
Gradients differentiate(at::TensorList grads, const std::vector<FakeQuantInputs>& inputs, kernels::FakeQuantGrid grid) {
  Gradients out;
  if (inputs.empty()) return out;
  const at::Tensor& first = inputs[0].weight;
  const c10::cuda::CUDAGuard guard(first.device());
  const bool narrow = std::all_of(grads.begin(), grads.end(),
                                  [](const at::Tensor& grad) { return grad.scalar_type() == at::kBFloat16; });
  const at::ScalarType grad_dtype = value_dtype(first, narrow ? at::kBFloat16 : at::kFloat);
  std::vector<at::Tensor> contiguous;  // keeps copies alive until the launch
  std::vector<kernels::FakeQuantBackwardTask> tasks;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const FakeQuantInputs& in = inputs[i];
    TORCH_CHECK(grads[i].sizes() == in.weight.sizes() && grads[i].device() == first.device(),
                "fake_quant_backward: expected a gradient ", in.weight.sizes(), " on ", first.device(), ", found ",
                grads[i].sizes(), " on ", grads[i].device());
    contiguous.push_back(grads[i].to(grad_dtype).contiguous());
    out.weights.push_back(at::empty_like(in.weight));
    out.scales.push_back(at::empty_like(in.scale));
    if (in.zero_point.defined()) out.zero_points.push_back(at::empty_like(in.zero_point));
    tasks.push_back({in.extent, in.grid.group_size, contiguous.back().const_data_ptr(), in.weight.const_data_ptr(),
                     in.scale.const_data_ptr(), data_or_null(in.zero_point), out.weights.back().mutable_data_ptr(),
                     out.scales.back().mutable_data_ptr(),
                     in.zero_point.defined() ? out.zero_points.back().mutable_data_ptr() : nullptr});
  }
  kernels::fake_quant_backward_cuda(grid, tasks, kernel_dtype(grad_dtype), kernel_dtype(first.scalar_type()),
                                    c10::cuda::getCurrentCUDAStream());
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quant_backward(const at::Tensor& grad, const at::Tensor& weight,
                                                                   const at::Tensor& scale,
                                                                   const std::optional<at::Tensor>& zero_point,
                                                                   int64_t kind, int64_t bits, int64_t group_size,
                                                                   int64_t scale_rounding) {
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, group_size, scale_rounding, 0);
  const Gradients out = differentiate({grad}, {FakeQuantInputs(grid, weight, scale, zero_point)}, grid);
  return {out.weights[0], out.scales[0].to(scale.scalar_type()),
          out.zero_points.empty() ? at::Tensor() : out.zero_points[0].to(zero_point->scalar_type())};
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>, std::vector<at::Tensor>> fake_quant_backward_many(
    at::TensorList grads, at::TensorList weights, at::TensorList scales, at::TensorList zero_points, int64_t kind,
    int64_t bits, at::IntArrayRef group_sizes, int64_t scale_rounding) {
  TORCH_CHECK(grads.size() == weights.size(), "fake_quant_backward_many: ", grads.size(), " gradients for ",
              weights.size(), " weights");
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, 1, scale_rounding, 0);
  Gradients out = differentiate(grads, batch_inputs(grid, weights, scales, zero_points, group_sizes), grid);
  for (size_t i = 0; i < scales.size(); ++i) out.scales[i] = out.scales[i].to(scales[i].scalar_type());
  for (size_t i = 0; i < zero_points.size(); ++i)
    out.zero_points[i] = out.zero_points[i].to(zero_points[i].scalar_type());
  return {out.weights, out.scales, out.zero_points};
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

std::tuple<at::Tensor, at::Tensor> clip_search(const at::Tensor& weight, const std::optional<at::Tensor>& importance,
                                               int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding) {
  const c10::cuda::CUDAGuard guard(weight.device());
  const ClipSearchTensors in(make_grid(kind, bits, group_size, scale_rounding, 0), weight, importance);
  kernels::clip_search_cuda(in.grid, in.extent, kernel_dtype(in.weight.scalar_type()), in.weight.const_data_ptr(),
                            data_or_null(in.importance), in.scale.mutable_data_ptr(),
                            in.zero_point.defined() ? in.zero_point.mutable_data_ptr() : nullptr,
                            c10::cuda::getCurrentCUDAStream());
  return {in.scale, in.zero_point};
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> data_scale_many(at::TensorList weights, int64_t kind,
                                                                             int64_t bits, at::IntArrayRef group_sizes,
                                                                             int64_t scale_rounding) {
  const DataScaleOutputs out(make_grid(kind, bits, 1, scale_rounding, 0), weights, group_sizes);
  if (weights.empty()) return {out.scales, out.zero_points};
  const c10::cuda::CUDAGuard guard(weights[0].device());
  std::vector<kernels::DataScaleTask> tasks;
  for (size_t i = 0; i < weights.size(); ++i)
    tasks.push_back({out.extents[i], group_sizes[i], out.weights[i].const_data_ptr(), out.scales[i].mutable_data_ptr(),
                     out.zero_points.empty() ? nullptr : out.zero_points[i].mutable_data_ptr()});
  kernels::data_scale_cuda(out.grid, tasks, kernel_dtype(weights[0].scalar_type()), c10::cuda::getCurrentCUDAStream());
  return {out.scales, out.zero_points};
}

TORCH_LIBRARY_IMPL(satin, CUDA, m) {
  m.impl("fake_quant", fake_quant);
  m.impl("fake_quant_many", fake_quant_many);
  m.impl("fake_quant_backward", fake_quant_backward);
  m.impl("fake_quant_backward_many", fake_quant_backward_many);
  m.impl("fake_quant_codes", fake_quant_codes);
  m.impl("data_scale_many", data_scale_many);
  m.impl("clip_search", clip_search);
}

}  // namespace

void anchor_cuda() {}

}  // namespace satin::ops
