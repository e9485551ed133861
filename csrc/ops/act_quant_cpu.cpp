// CPU: rows over torch's threads. bfloat16 activations are computed in fp32.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/act_quant_checks.h"
#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

at::Tensor act_quant(const at::Tensor& x, int64_t format) {
  const ActQuantInputs in(x, format);
  const at::Tensor wide = in.x.to(arithmetic_dtype(x));
  at::Tensor out = at::empty_like(wide);
  for_scalar(wide.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::act_quant_cpu(in.format, in.extent, begin, end, wide.const_data_ptr<T>(), out.mutable_data_ptr<T>());
    });
  });
  return out.to(x.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> act_quant_codes(const at::Tensor& x, int64_t format) {
  const ActQuantInputs in(x, format);
  const at::Tensor wide = in.x.to(arithmetic_dtype(x));
  at::Tensor codes = in.empty_codes(), scale = in.empty_scale();
  for_scalar(wide.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::act_quant_codes_cpu(in.format, in.extent, begin, end, wide.const_data_ptr<T>(),
                                   static_cast<uint8_t*>(codes.mutable_data_ptr()), scale.mutable_data_ptr<T>());
    });
  });
  return {codes, scale};
}

at::Tensor act_quant_static(const at::Tensor& x, const at::Tensor& scale, int64_t format) {
  const ActQuantInputs in(x, scale, format);
  const at::Tensor wide = in.x.to(in.scale.scalar_type());
  at::Tensor out = at::empty_like(wide);
  for_scalar(wide.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::act_quant_static_cpu(in.format, in.extent, begin, end, wide.const_data_ptr<T>(),
                                    in.scale.const_data_ptr<T>(), out.mutable_data_ptr<T>());
    });
  });
  return out.to(x.scalar_type());
}

std::tuple<at::Tensor, at::Tensor> act_quant_static_backward(const at::Tensor& grad, const at::Tensor& x,
                                                             const at::Tensor& scale, int64_t format) {
  const ActQuantInputs in(x, scale, format);
  const at::Tensor wide = in.x.to(in.scale.scalar_type()), g = in.checked_grad(grad).to(wide.scalar_type());
  at::Tensor grad_x = at::empty_like(wide);
  std::vector<double> row_sums(static_cast<size_t>(in.extent.num_rows));
  for_scalar(wide.scalar_type(), [&]<class T>(T) {
    over_rows(in.extent, [&](int64_t begin, int64_t end) {
      kernels::act_quant_static_backward_cpu(in.format, in.extent, begin, end, g.const_data_ptr<T>(),
                                             wide.const_data_ptr<T>(), in.scale.const_data_ptr<T>(),
                                             grad_x.mutable_data_ptr<T>(), row_sums.data());
    });
  });
  const double sum = kernels::act_quant_scale_gradient(in.format, in.extent, row_sums.data());
  return {grad_x.to(x.scalar_type()), at::full_like(scale, sum)};
}

TORCH_LIBRARY_IMPL(satin, CPU, m) {
  m.impl("act_quant", act_quant);
  m.impl("act_quant_codes", act_quant_codes);
  m.impl("act_quant_static", act_quant_static);
  m.impl("act_quant_static_backward", act_quant_static_backward);
}

}  // namespace

void anchor_act_quant_cpu() {}

}  // namespace satin::ops
