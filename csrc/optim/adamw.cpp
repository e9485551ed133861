#include "optim/adamw.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>

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
    : betas_{options.beta1, options.beta2, options.epsilon} {
  std::map<std::pair<at::ScalarType, std::string>, std::vector<size_t>> groups;
  for (const nn::Parameter& parameter : parameters) {
    const at::Tensor& value = parameter.value;
    if (!value.requires_grad()) continue;
    SATIN_CHECK(value.scalar_type() == at::kFloat || value.scalar_type() == at::kDouble, parameter.name,
                ": expected float or double, found ", value.scalar_type());
    SATIN_CHECK(value.is_non_overlapping_and_dense(), parameter.name, " has holes or overlaps in memory");
    groups[{value.scalar_type(), value.device().str()}].push_back(slots_.size());
    const at::Tensor like = value.detach();
    slots_.push_back({parameter,
                      learning_rate_of(parameter.role, options),
                      parameter.role == nn::Role::kWeight ? options.weight_decay : 0,
                      at::zeros_like(like),
                      at::zeros_like(like),
                      {}});
  }
  for (auto& [kind, slots] : groups) {
    const at::Tensor steps =
        at::zeros({static_cast<int64_t>(slots.size())}, slots_[slots[0]].exp_avg.options().dtype(at::kFloat));
    const std::vector<at::Tensor> each = steps.unbind();
    for (size_t i = 0; i < slots.size(); ++i) slots_[slots[i]].step = each[i];
    groups_.push_back({std::move(slots), steps});
  }
}

void AdamW::step(double multiplier, const ClipFactors& clip, const at::Tensor& skip) {
  const at::NoGradGuard no_grad;
  for (const Group& group : groups_) update(group, multiplier, clip, skip);
}

void AdamW::update(const Group& group, double multiplier, const ClipFactors& clip, const at::Tensor& skip) {
  std::vector<at::Tensor> steps;
  for (const size_t i : group.slots)
    if (slots_[i].parameter.value.grad().defined()) steps.push_back(slots_[i].step);
  if (steps.empty()) return;
  if (skip.defined())
    at::_foreach_add_(steps, 1 - skip);
  else
    at::_foreach_add_(steps, 1);
  const at::ScalarType dtype = slots_[group.slots[0]].exp_avg.scalar_type();
  const at::Tensor taken = group.steps.to(at::kDouble);
  const std::vector<at::Tensor> corrections =
      at::stack({(1 - at::pow(betas_.beta1, taken)).reciprocal(), (1 - at::pow(betas_.beta2, taken)).rsqrt()}, 1)
          .to(dtype)
          .unbind();
  const auto as_values = [&](const at::Tensor& factor) { return factor.defined() ? factor.to(dtype) : factor; };
  const at::Tensor of_model = as_values(clip.model), of_quantizer = as_values(clip.quantizer);

  ops::AdamWBatch batch{{}, betas_, skip};
  for (size_t i = 0; i < group.slots.size(); ++i) {
    const Slot& slot = slots_[group.slots[i]];
    const at::Tensor& value = slot.parameter.value;
    at::Tensor gradient = value.grad();
    if (!gradient.defined()) continue;
    // The kernels walk memory, so layouts must agree.
    if (gradient.strides() != value.strides()) gradient = at::zeros_like(value).copy_(gradient);
    batch.items.push_back({value, gradient, slot.exp_avg, slot.exp_avg_sq, corrections[i],
                           nn::is_quantizer(slot.parameter.role) ? of_quantizer : of_model,
                           slot.learning_rate * multiplier, slot.weight_decay});
  }
  ops::adamw(batch);
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
