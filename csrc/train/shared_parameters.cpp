#include "train/shared_parameters.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "nn/gradient.h"

namespace satin::train {
namespace {

/// Numbers of a gradient that is worth a message of its own as soon as it is there; norms and biases of all blocks go
/// together.
constexpr int64_t kLarge = 1 << 15;

at::Tensor& gradient_of(const nn::Parameter& parameter) {
  return (parameter.whole.defined() ? parameter.whole : parameter.value).mutable_grad();
}

}  // namespace

SharedParameters::SharedParameters(const std::vector<nn::Parameter>& parameters, const dist::Sharing& sharing)
    : sharing_(sharing) {
  for (const nn::Parameter& parameter : parameters) {
    if (!parameter.is_split() || parameter.whole.defined()) blocks_[nn::block_of(parameter.name)].push_back(&parameter);
    if (parameter.whole.defined()) gathered_.push_back(&parameter);
  }
  gather();
}

void SharedParameters::start_reduce(int64_t block) {
  std::vector<const nn::Parameter*> large;
  for (const nn::Parameter* parameter : blocks_[block])
    if (const at::Tensor& gradient = gradient_of(*parameter); gradient.defined() && gradient.numel() >= kLarge)
      large.push_back(parameter);
  start_reduce(large);
}

void SharedParameters::start_reduce(const std::vector<const nn::Parameter*>& parameters) {
  if (sharing_.world->size() == 1) return;
  const at::NoGradGuard no_grad;
  std::map<std::pair<bool, at::ScalarType>, std::pair<std::vector<const nn::Parameter*>, std::vector<at::Tensor>>>
      lists;
  for (const nn::Parameter* parameter : parameters) {
    const at::Tensor gradient = std::exchange(gradient_of(*parameter), at::Tensor());
    if (!gradient.defined()) continue;
    auto& [owners, gradients] = lists[{parameter->whole.defined(), gradient.scalar_type()}];
    owners.push_back(parameter);
    gradients.push_back(gradient);
  }
  for (auto& [kind, list] : lists)
    reduces_.push_back({std::move(list.first), kind.first, dist::GradientReduce(sharing_, list.second, kind.first)});
}

void SharedParameters::start_rest() {
  std::vector<const nn::Parameter*> all;
  for (const auto& [block, parameters] : blocks_) all.insert(all.end(), parameters.begin(), parameters.end());
  start_reduce(all);
}

void SharedParameters::finish_reduces() {
  const at::NoGradGuard no_grad;
  for (Reduce& reduce : reduces_) {
    std::vector<at::Tensor> sums = reduce.sums.finish();
    if (!sums.empty()) sums = dist::all_as(sums, reduce.parameters[0]->value.scalar_type());
    for (size_t i = 0; i < sums.size(); ++i) nn::add_gradient(reduce.parameters[i]->value, sums[i]);
  }
  reduces_.clear();
}

void SharedParameters::gather() {
  const at::NoGradGuard no_grad;
  if (gathered_.empty()) return;
  std::vector<at::Tensor> parts;
  std::vector<int64_t> num_rows;
  for (const nn::Parameter* parameter : gathered_) {
    parts.push_back(parameter->value);
    num_rows.push_back(parameter->full_shape[0]);
  }
  const std::vector<at::Tensor> wholes = dist::RowGather(*sharing_.shards, parts, num_rows).finish();
  for (size_t i = 0; i < wholes.size(); ++i) at::Tensor(gathered_[i]->whole).copy_(wholes[i]);
}

}  // namespace satin::train
