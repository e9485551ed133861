// CPU: rows over torch's threads. bfloat16 is computed in fp32.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "kernels/swiglu.h"
#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/layers_checks.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
constexpr int64_t kValuesPerTask = 32768;

at::Tensor wide(const at::Tensor& x, at::ScalarType dtype) { return x.defined() ? x.to(dtype) : x; }
const void* data(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

std::tuple<at::Tensor, at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, const OptionalTensor& delta,
                                                        const at::Tensor& weight, double eps, at::ScalarType dtype) {
  const RmsNormInputs in(x, delta, weight, dtype);
  const at::ScalarType arithmetic = arithmetic_dtype(x);
  const at::Tensor wide_x = wide(in.x, arithmetic), wide_delta = wide(in.delta, arithmetic);
  at::Tensor sum = in.delta.defined() ? at::empty_like(wide_x) : at::Tensor();
  at::Tensor y = at::empty_like(wide_x), rstd = in.empty_rstd();
  const kernels::RmsNormForward call{wide_x.const_data_ptr(),    data(wide_delta),
                                     in.weight.const_data_ptr(), sum.defined() ? sum.mutable_data_ptr() : nullptr,
                                     y.mutable_data_ptr(),       rstd.mutable_data_ptr()};
  for_scalar(arithmetic, [&]<class T>(T) {
    over_rows(in.extent,
              [&](int64_t begin, int64_t end) { kernels::rms_norm_cpu<T>(in.extent, eps, begin, end, call); });
  });
  return {sum, y.to(dtype), rstd};  // a sum has the arithmetic's dtype
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> rms_norm_backward(const at::Tensor& grad,
                                                                 const OptionalTensor& grad_later,
                                                                 const at::Tensor& sum, const at::Tensor& weight,
                                                                 const at::Tensor& rstd, bool with_delta) {
  const RmsNormInputs in(sum, std::nullopt, weight, grad.scalar_type());
  const at::ScalarType arithmetic = arithmetic_dtype(sum);
  const at::Tensor wide_sum = wide(in.x, arithmetic), g = checked_gradient(grad, sum, arithmetic);
  const at::Tensor later = grad_later ? checked_gradient(*grad_later, sum, arithmetic) : at::Tensor();
  at::Tensor grad_x = at::empty_like(wide_sum);
  at::Tensor partials =
      at::empty({kernels::rms_norm_num_partials_cpu(in.extent), in.extent.num_columns}, wide_sum.options());
  const kernels::RmsNormBackward call{g.const_data_ptr(),         data(later),
                                      wide_sum.const_data_ptr(),  in.weight.const_data_ptr(),
                                      rstd.const_data_ptr(),      grad_x.mutable_data_ptr(),
                                      /*grad_delta=*/nullptr,     /*grad_weight=*/nullptr,
                                      partials.mutable_data_ptr()};
  for_scalar(arithmetic, [&]<class T>(T) {
    at::parallel_for(0, partials.size(0), 1, [&](int64_t begin, int64_t end) {
      kernels::rms_norm_backward_cpu<T>(in.extent, begin * kernels::kNormRowsAPartial,
                                        std::min(end * kernels::kNormRowsAPartial, in.extent.num_rows), call);
    });
  });
  return {grad_x.to(sum.scalar_type()), with_delta ? grad_x.to(grad.scalar_type()) : at::Tensor(), partials.sum(0)};
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  check_alike(gate, up);
  const at::ScalarType arithmetic = arithmetic_dtype(gate);
  const at::Tensor g = gate.to(arithmetic).contiguous(), u = up.to(arithmetic).contiguous();
  at::Tensor y = at::empty_like(g);
  for_scalar(arithmetic, [&]<class T>(T) {
    at::parallel_for(0, g.numel(), kValuesPerTask, [&](int64_t begin, int64_t end) {
      kernels::swiglu_cpu(begin, end, g.const_data_ptr<T>(), u.const_data_ptr<T>(), y.mutable_data_ptr<T>());
    });
  });
  return y.to(gate.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> swiglu_backward(const at::Tensor& grad, const at::Tensor& gate,
                                                   const at::Tensor& up) {
  check_alike(gate, up);
  const at::ScalarType arithmetic = arithmetic_dtype(gate);
  const at::Tensor d = checked_gradient(grad, gate, arithmetic);
  const at::Tensor g = gate.to(arithmetic).contiguous(), u = up.to(arithmetic).contiguous();
  at::Tensor grad_gate = at::empty_like(g), grad_up = at::empty_like(g);
  for_scalar(arithmetic, [&]<class T>(T) {
    at::parallel_for(0, g.numel(), kValuesPerTask, [&](int64_t begin, int64_t end) {
      kernels::swiglu_backward_cpu(begin, end, d.const_data_ptr<T>(), g.const_data_ptr<T>(), u.const_data_ptr<T>(),
                                   grad_gate.mutable_data_ptr<T>(), grad_up.mutable_data_ptr<T>());
    });
  });
  return {grad_gate.to(gate.scalar_type()), grad_up.to(gate.scalar_type())};
}

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool inverse) {
  const RotateInputs in(x, cos, sin);
  const at::ScalarType arithmetic = arithmetic_dtype(x);
  const at::Tensor from = in.x.to(arithmetic);
  at::Tensor y = at::empty_like(from);
  for_scalar(arithmetic, [&]<class T>(T) {
    over_rows({in.shape.sequences * in.shape.heads * in.shape.tokens, in.shape.features},
              [&](int64_t begin, int64_t end) {
                kernels::rope_cpu(in.shape, inverse, begin, end, from.const_data_ptr<T>(), rope_strides(from),
                                  in.cos.const_data_ptr<T>(), in.sin.const_data_ptr<T>(), y.mutable_data_ptr<T>(),
                                  rope_strides(y));
              });
  });
  return y.to(x.scalar_type());
}

TORCH_LIBRARY_IMPL(satin, CPU, m) {
  m.impl("rms_norm", rms_norm);
  m.impl("rms_norm_backward", rms_norm_backward);
  m.impl("swiglu", swiglu);
  m.impl("swiglu_backward", swiglu_backward);
  m.impl("rotate", rotate);
}

}  // namespace

void anchor_layers_cpu() {}

}  // namespace satin::ops
