#include "optim/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "core/error.h"

namespace satin::optim {
namespace {

double learning_rate_of(nn::Role role, const config::Optimizer& options) {
  switch (role) {
    case nn::Role::kScale:
      return options.scale_learning_rate;
    case nn::Role::kZeroPoint:
      return options.zero_point_learning_rate;
    case nn::Role::kClip:
      return options.clip_learning_rate;
    case nn::Role::kWeight:
    case nn::Role::kEmbedding:
    case nn::Role::kNorm:
    case nn::Role::kBias:
      return options.learning_rate;
  }
  SATIN_CHECK(false, "a role without a learning rate: ", static_cast<int>(role));
}

}  // namespace

AdamW::AdamW(const std::vector<nn::Parameter>& parameters, const config::Optimizer& options)
    : beta1_(options.beta1), beta2_(options.beta2), epsilon_(options.epsilon) {
  for (const nn::Parameter& parameter : parameters) {
    const at::Tensor& value = parameter.value;
    if (!value.requires_grad()) continue;
    SATIN_CHECK(value.is_non_overlapping_and_dense(), parameter.name, " has holes or overlaps in memory");
    const double learning_rate = learning_rate_of(parameter.role, options);
    const double weight_decay = parameter.role == nn::Role::kWeight ? options.weight_decay : 0;
    auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) {
      return g.learning_rate == learning_rate && g.weight_decay == weight_decay && g.dtype == value.scalar_type() &&
             g.device == value.device();
    });
    if (group == groups_.end())
      group = groups_.insert(group, {learning_rate, weight_decay, value.scalar_type(), value.device(), {}});
    group->slots.push_back(slots_.size());
    const at::Tensor like = value.detach();
    slots_.push_back(
        {parameter, at::zeros_like(like), at::zeros_like(like), at::zeros({}, like.options().dtype(at::kFloat))});
  }
}

void AdamW::step(double multiplier, const at::Tensor& skip) {
  const at::NoGradGuard no_grad;
  const std::optional<at::Tensor> found_inf = skip.defined() ? std::optional(skip) : std::nullopt;
  for (const Group& group : groups_) {
    std::vector<at::Tensor> values, gradients, exp_avgs, exp_avg_sqs, steps;
    for (size_t i : group.slots) {
      const Slot& slot = slots_[i];
      const at::Tensor& value = slot.parameter.value;
      at::Tensor gradient = value.grad();
      if (!gradient.defined()) continue;
      // The kernels walk memory, so layouts must agree.
      if (gradient.strides() != value.strides()) gradient = at::zeros_like(value).copy_(gradient);
      values.push_back(value);
      gradients.push_back(gradient);
      exp_avgs.push_back(slot.exp_avg);
      exp_avg_sqs.push_back(slot.exp_avg_sq);
      steps.push_back(slot.step);
    }
    if (values.empty()) continue;
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(values, gradients, exp_avgs, exp_avg_sqs, /*max_exp_avg_sqs=*/{}, steps,
                      group.learning_rate * multiplier, beta1_, beta2_, group.weight_decay, epsilon_,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
    if (found_inf) at::_foreach_sub_(steps, std::vector<at::Tensor>(steps.size(), *found_inf));
  }
}

void AdamW::zero_grad() {
  for (Slot& slot : slots_) slot.parameter.value.mutable_grad().reset();
}

std::vector<std::pair<std::string, at::Tensor>> AdamW::state() const {
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (const Slot& slot : slots_) {
    named.emplace_back(slot.parameter.name + ".exp_avg", slot.exp_avg);
    named.emplace_back(slot.parameter.name + ".exp_avg_sq", slot.exp_avg_sq);
    named.emplace_back(slot.parameter.name + ".step", slot.step);
  }
  return named;
}

void AdamW::load_state(const std::function<at::Tensor(const std::string&)>& find) {
  const at::NoGradGuard no_grad;
  std::string problems;
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;
  for (const auto& [name, target] : state()) {
    const at::Tensor source = find(name);
    if (!source.defined())
      problems += cat("\n  ", name, ": missing");
    else if (source.sizes() != target.sizes())
      problems += cat("\n  ", name, ": expected shape ", target.sizes(), ", found ", source.sizes());
    else
      copies.emplace_back(target, source);
  }
  if (!problems.empty())
    throw UserError(
        cat("the optimizer state does not fit this model:", problems,
            "\nResume with the configuration that wrote the checkpoint, or start a new run from its weights."));
  for (auto& [target, source] : copies) target.copy_(source);
}

int64_t AdamW::state_bytes() const {
  int64_t bytes = 0;
  for (const Slot& slot : slots_)
    bytes += static_cast<int64_t>(slot.exp_avg.nbytes() + slot.exp_avg_sq.nbytes() + slot.step.nbytes());
  return bytes;
}

}  // namespace satin::optim
