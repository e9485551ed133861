#include "optim/clip.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "core/error.h"

namespace satin::optim {
namespace {

bool of_quantizer(const nn::Parameter& parameter) { return nn::is_quantizer(parameter.role); }

/// Gradients of one set, by dtype (the list kernels take one dtype).
std::map<at::ScalarType, std::vector<at::Tensor>> gradients_of(const std::vector<nn::Parameter>& parameters,
                                                               bool quantizer) {
  std::map<at::ScalarType, std::vector<at::Tensor>> lists;
  for (const nn::Parameter& parameter : parameters)
    if (of_quantizer(parameter) == quantizer && parameter.value.grad().defined())
      lists[parameter.value.grad().scalar_type()].push_back(parameter.value.grad());
  return lists;
}

at::Tensor norm_of(const std::map<at::ScalarType, std::vector<at::Tensor>>& lists) {
  const at::ScalarType dtype = lists.contains(at::kDouble) ? at::kDouble : at::kFloat;
  std::vector<at::Tensor> norms;
  for (const auto& [list_dtype, gradients] : lists)
    for (const at::Tensor& norm : at::_foreach_norm(gradients, 2, dtype)) norms.push_back(norm);
  return norms.empty() ? at::Tensor() : at::linalg_vector_norm(at::stack(norms));
}

/// Names of the parameters for which `tensor_of` gives a tensor with a NaN or infinity; one synchronisation.
template <class TensorOf>
std::vector<std::string> names_of_non_finite(const std::vector<nn::Parameter>& parameters, TensorOf tensor_of) {
  const at::NoGradGuard no_grad;
  std::vector<std::string> names;
  std::vector<at::Tensor> finite;
  for (const nn::Parameter& parameter : parameters) {
    const at::Tensor tensor = tensor_of(parameter);
    if (!tensor.defined()) continue;
    names.push_back(parameter.name);
    finite.push_back(at::isfinite(tensor).all());
  }
  if (finite.empty()) return {};
  const at::Tensor flags = at::stack(finite).cpu();
  std::vector<std::string> found;
  for (size_t i = 0; i < names.size(); ++i)
    if (!flags[static_cast<int64_t>(i)].item<bool>()) found.push_back(names[i]);
  return found;
}

/// Norms where parameters are owned by rows: squares of these are summed over the processes.
GradientNorms norms_over(const std::vector<nn::Parameter>& parameters, dist::Communicator& shards) {
  std::vector<nn::Parameter> whole, split;
  for (const nn::Parameter& parameter : parameters) (parameter.is_split() ? split : whole).push_back(parameter);
  const GradientNorms of_whole = gradient_norms(whole), of_split = gradient_norms(split);
  const at::Tensor squares = at::stack({of_split.model, of_split.quantizer}).square();
  shards.all_reduce(squares).wait();
  const at::Tensor sums = squares + at::stack({of_whole.model, of_whole.quantizer}).to(squares.device()).square();
  const at::Tensor norms = sums.sqrt();
  return {norms[0], norms[1]};
}

}  // namespace

GradientNorms gradient_norms(const std::vector<nn::Parameter>& parameters, dist::Communicator* shards) {
  const at::NoGradGuard no_grad;
  if (shards && shards->size() > 1) return norms_over(parameters, *shards);
  GradientNorms norms{norm_of(gradients_of(parameters, false)), norm_of(gradients_of(parameters, true))};
  // An empty set's zero lies where the other's norm does, so that they add without a copy between devices.
  if (!norms.model.defined()) norms.model = norms.quantizer.defined() ? at::zeros_like(norms.quantizer) : at::zeros({});
  if (!norms.quantizer.defined()) norms.quantizer = at::zeros_like(norms.model);
  return norms;
}

ClipFactors clip_factors(const GradientNorms& norms, double max_norm) {
  SATIN_CHECK(max_norm >= 0, "clip_grad_norm ", max_norm);
  if (max_norm == 0) return {};
  const at::NoGradGuard no_grad;
  const auto factor = [&](const at::Tensor& norm) {
    return (max_norm / (norm + 1e-6)).clamp_max(1).masked_fill(at::isfinite(norm).logical_not(), 1);
  };
  return {factor(norms.model), factor(norms.quantizer)};
}

at::Tensor non_finite(const GradientNorms& norms) {
  // The sum of two norms is finite unless one of them is not (or both are beyond half the largest float: no matter).
  return at::isfinite(norms.model + norms.quantizer).logical_not().to(at::kFloat);
}

std::vector<std::string> non_finite_gradients(const std::vector<nn::Parameter>& parameters) {
  return names_of_non_finite(parameters, [](const nn::Parameter& parameter) { return parameter.value.grad(); });
}

std::vector<std::string> non_finite_values(const std::vector<nn::Parameter>& parameters) {
  return names_of_non_finite(parameters, [](const nn::Parameter& parameter) { return parameter.value; });
}

}  // namespace satin::optim
