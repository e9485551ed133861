#include "ptq/layer_objective.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace satin::ptq {

LayerObjective::Terms LayerObjective::terms(const at::Tensor& error) const {
  const at::NoGradGuard no_grad;
  Terms found{at::mm(error, input).mul_(error).sum(), {}};
  if (gradient.defined()) found.backward = at::mm(gradient, error).mul_(error).sum();
  return found;
}

at::Tensor LayerObjective::slope(const at::Tensor& error) const {
  const at::NoGradGuard no_grad;
  at::Tensor slope = at::mm(error, input);
  if (gradient.defined()) slope.addmm_(gradient, error, 1, weight);
  return slope.mul_(2);
}

LayerObjective LayerObjective::balanced(const at::Tensor& input, const at::Tensor& gradient, const at::Tensor& error,
                                        double ratio) {
  if (ratio == 0 || !gradient.defined()) return {input, {}, 0};
  LayerObjective objective{input, gradient, 0};
  const Terms found = objective.terms(error);
  const double forward = found.forward.item<double>(), backward = found.backward.item<double>();
  if (!(backward > 0)) return {input, {}, 0};
  objective.weight = ratio * forward / backward;
  return objective;
}

}  // namespace satin::ptq
