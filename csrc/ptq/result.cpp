#include "ptq/result.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "quant/codes.h"

namespace satin::ptq {

void hold(quant::QuantLinear& linear, const Rounded& rounded) {
  const at::NoGradGuard no_grad;
  at::Tensor(linear.master_weight()).copy_(rounded.weight);
  const quant::QuantizerParameters& parameters = linear.quantizer().parameters();
  const int64_t num_rows = parameters.scale.size(0);  // 1 for a scale a tensor, where all are equal
  at::Tensor(parameters.scale).copy_(rounded.state.scale.narrow(0, 0, num_rows));
  if (parameters.zero_point.defined())
    at::Tensor(parameters.zero_point).copy_(rounded.state.zero_point.narrow(0, 0, num_rows));
}

void move_to_levels(quant::QuantLinear& linear) {
  const at::NoGradGuard no_grad;
  const quant::QuantizedWeight found = quant::quantize_weight(linear);
  at::Tensor weight = linear.master_weight();
  const at::Tensor levels = quant::levels(found).view({weight.size(0), found.scale.size(1), -1});
  weight.copy_((found.scale.to(weight.scalar_type()).unsqueeze(-1) * levels.to(weight.scalar_type())).view_as(weight));
}

}  // namespace satin::ptq
