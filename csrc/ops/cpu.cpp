// CPU: rows over torch's threads. bfloat16 weights are computed in fp32.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "kernels/clip_search.h"
#include "kernels/data_scale.h"
#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

template <class T>
const T* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<T>() : nullptr;
}
template <class T>
T* mutable_data_or_null(at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

at::Tensor quantize(const FakeQuantInputs& in, at::ScalarType dtype) {
  const at::Tensor w = in.weight.to(in.scale.scalar_type());
  at::Tensor out = at::empty_like(w);
  for_scalar(w.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::fake_quant_cpu(in.grid, in.extent, begin, end, w.const_data_ptr<T>(), in.scale.const_data_ptr<T>(),
                              data_or_null<T>(in.zero_point), out.mutable_data_ptr<T>());
    });
  });
  return out.to(dtype);
}

at::Tensor fake_quant(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                      int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding, int64_t dequant_rounding,
                      at::ScalarType dtype) {
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, group_size, scale_rounding, dequant_rounding);
  return quantize(FakeQuantInputs(grid, weight, scale, zero_point), dtype);
}

std::vector<at::Tensor> fake_quant_many(at::TensorList weights, at::TensorList scales, at::TensorList zero_points,
                                        int64_t kind, int64_t bits, at::IntArrayRef group_sizes, int64_t scale_rounding,
                                        int64_t dequant_rounding, at::ScalarType dtype) {
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, 1, scale_rounding, dequant_rounding);
  std::vector<at::Tensor> outs;
  for (const FakeQuantInputs& in : batch_inputs(grid, weights, scales, zero_points, group_sizes))
    outs.push_back(quantize(in, dtype));
  return outs;
}

/// Gradients of weight (in its dtype), scale and zero point (in the arithmetic dtype).
std::tuple<at::Tensor, at::Tensor, at::Tensor> differentiate(const at::Tensor& grad, const FakeQuantInputs& in) {
  const at::Tensor w = in.weight.to(in.scale.scalar_type()), g = grad.to(w.scalar_type()).contiguous();
  TORCH_CHECK(g.sizes() == w.sizes(), "fake_quant_backward: expected a gradient ", w.sizes(), ", found ", g.sizes());
  at::Tensor grad_weight = at::empty_like(w), grad_scale = at::empty_like(in.scale), grad_zero_point;
  if (in.zero_point.defined()) grad_zero_point = at::empty_like(in.zero_point);
  for_scalar(w.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::fake_quant_backward_cpu(in.grid, in.extent, begin, end, g.const_data_ptr<T>(), w.const_data_ptr<T>(),
                                       in.scale.const_data_ptr<T>(), data_or_null<T>(in.zero_point),
                                       grad_weight.mutable_data_ptr<T>(), grad_scale.mutable_data_ptr<T>(),
                                       mutable_data_or_null<T>(grad_zero_point));
    });
  });
  return {grad_weight.to(in.weight.scalar_type()), grad_scale, grad_zero_point};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quant_backward(const at::Tensor& grad, const at::Tensor& weight,
                                                                   const at::Tensor& scale,
                                                                   const std::optional<at::Tensor>& zero_point,
                                                                   int64_t kind, int64_t bits, int64_t group_size,
                                                                   int64_t scale_rounding) {
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, group_size, scale_rounding, 0);
  auto [grad_weight, grad_scale, grad_zero] = differentiate(grad, FakeQuantInputs(grid, weight, scale, zero_point));
  if (grad_zero.defined()) grad_zero = grad_zero.to(zero_point->scalar_type());
  return {grad_weight, grad_scale.to(scale.scalar_type()), grad_zero};
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>, std::vector<at::Tensor>> fake_quant_backward_many(
    at::TensorList grads, at::TensorList weights, at::TensorList scales, at::TensorList zero_points, int64_t kind,
    int64_t bits, at::IntArrayRef group_sizes, int64_t scale_rounding) {
  TORCH_CHECK(grads.size() == weights.size(), "fake_quant_backward_many: ", grads.size(), " gradients for ",
              weights.size(), " weights");
  const kernels::FakeQuantGrid grid = make_grid(kind, bits, 1, scale_rounding, 0);
  const auto inputs = batch_inputs(grid, weights, scales, zero_points, group_sizes);
  std::vector<at::Tensor> grad_weights, grad_scales, grad_zero_points;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto [w, s, z] = differentiate(grads[i], inputs[i]);
    grad_weights.push_back(w);
    grad_scales.push_back(s.to(scales[i].scalar_type()));
    if (z.defined()) grad_zero_points.push_back(z.to(zero_points[i].scalar_type()));
  }
  return {grad_weights, grad_scales, grad_zero_points};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quant_codes(const at::Tensor& weight, const at::Tensor& scale,
                                                                const std::optional<at::Tensor>& zero_point,
                                                                int64_t kind, int64_t bits, int64_t group_size,
                                                                int64_t scale_rounding) {
  const FakeQuantInputs in(make_grid(kind, bits, group_size, scale_rounding, 0), weight, scale, zero_point);
  const at::Tensor w = in.weight.to(in.scale.scalar_type());
  at::Tensor codes = at::empty(w.sizes(), w.options().dtype(at::kByte));
  at::Tensor stored = at::empty_like(in.scale), zero = at::empty(in.scale.sizes(), w.options().dtype(at::kInt));
  for_scalar(w.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::fake_quant_codes_cpu(in.grid, in.extent, begin, end, w.const_data_ptr<T>(), in.scale.const_data_ptr<T>(),
                                    data_or_null<T>(in.zero_point), codes.mutable_data_ptr<uint8_t>(),
                                    stored.mutable_data_ptr<T>(), zero.mutable_data_ptr<int32_t>());
    });
  });
  return {codes, stored, zero};
}

std::tuple<at::Tensor, at::Tensor> clip_search(const at::Tensor& weight, const std::optional<at::Tensor>& importance,
                                               int64_t kind, int64_t bits, int64_t group_size, int64_t scale_rounding) {
  ClipSearchTensors in(make_grid(kind, bits, group_size, scale_rounding, 0), weight, importance);
  const at::Tensor w = in.weight.to(in.scale.scalar_type());
  for_scalar(w.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::clip_search_cpu(in.grid, in.extent, begin, end, w.const_data_ptr<T>(), data_or_null<T>(in.importance),
                               in.scale.mutable_data_ptr<T>(), mutable_data_or_null<T>(in.zero_point));
    });
  });
  return {in.scale, in.zero_point};
}

std::tuple<std::vector<at::Tensor>, std::vector<at::Tensor>> data_scale_many(at::TensorList weights, int64_t kind,
                                                                             int64_t bits, at::IntArrayRef group_sizes,
                                                                             int64_t scale_rounding) {
  DataScaleOutputs out(make_grid(kind, bits, 1, scale_rounding, 0), weights, group_sizes);
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor w = out.weights[i].to(out.scales[i].scalar_type());
    at::Tensor zero_point = out.zero_points.empty() ? at::Tensor() : out.zero_points[i];
    out.grid.group_size = group_sizes[i];
    for_scalar(w.scalar_type(), [&]<class T>(T) {
      over_rows(out.extents[i], [&](int64_t begin, int64_t end) {
        kernels::data_scale_cpu(out.grid, out.extents[i], begin, end, w.const_data_ptr<T>(),
                                out.scales[i].mutable_data_ptr<T>(), mutable_data_or_null<T>(zero_point));
      });
    });
  }
  return {out.scales, out.zero_points};
}

TORCH_LIBRARY_IMPL(satin, CPU, m) {
  m.impl("fake_quant", fake_quant);
  m.impl("fake_quant_many", fake_quant_many);
  m.impl("fake_quant_backward", fake_quant_backward);
  m.impl("fake_quant_backward_many", fake_quant_backward_many);
  m.impl("fake_quant_codes", fake_quant_codes);
  m.impl("data_scale_many", data_scale_many);
  m.impl("clip_search", clip_search);
}

}  // namespace

void anchor_cpu() {}

}  // namespace satin::ops
