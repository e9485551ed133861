// Legend: B windows, T tokens, H hidden, V vocabulary, N = B T.
#include "train/step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "quant/held_weights.h"
#include "train/stored_teacher.h"

namespace satin::train {
namespace {

/// Hidden states without a graph.
at::Tensor frozen_hidden(models::Decoder& decoder, const at::Tensor& tokens_BT, const at::Tensor& document_ids) {
  at::NoGradGuard no_grad;
  return decoder.hidden(tokens_BT, {.document_ids = document_ids});
}

at::Tensor rows(const at::Tensor& x_BTH) { return x_BTH.reshape({-1, x_BTH.size(-1)}); }

}  // namespace

TrainingStep::TrainingStep(models::Decoder& student, const quant::Registry& quantized, models::Decoder* teacher,
                           const losses::Objective& objective, const losses::Neighbourhood& neighbourhood,
                           int64_t chunk_tokens, double damping)
    : student_(student),
      quantized_(quantized),
      teacher_(teacher),
      objective_(objective),
      neighbourhood_(neighbourhood),
      chunk_tokens_(chunk_tokens),
      damping_(damping) {}

at::ScalarType TrainingStep::wide_dtype() const {
  return student_.parameters().options().compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
}

StepResult TrainingStep::run(const std::vector<data::Batch>& micro_batches, double progress) {
  StepResult result;
  for (const auto& batch : micro_batches) {
    result.num_tokens += batch.tokens.numel();
    result.num_scored += batch.loss_mask.sum().item<int64_t>();
  }
  if (result.num_scored == 0) throw UserError("a training step has no token to score: do the documents have answers?");
  const std::vector<losses::Term> terms = objective_.terms(progress);
  const bool needs_teacher = objective_.needs_teacher(progress);
  SATIN_CHECK(teacher_ || !needs_teacher || (micro_batches[0].teacher.defined() && !neighbourhood_.enabled()),
              "a loss needs a teacher");
  quant::HeldWeights weights(quantized_, student_.parameters().options().compute_dtype, /*trainable=*/true);
  for (const auto& batch : micro_batches) {
    run_micro_batch(batch, progress, terms, needs_teacher, result.num_scored, result);
    weights.collect();
  }
  weights.fold(damping_);
  result.total = at::zeros({}, at::TensorOptions().dtype(wide_dtype()).device(student_.parameters().options().device));
  for (const auto& term : terms)
    if (term.weight != 0) result.total += result.losses.at(term.loss->name()) * term.weight;
  return result;
}

void TrainingStep::run_micro_batch(const data::Batch& batch, double progress, const std::vector<losses::Term>& terms,
                                   bool needs_teacher, int64_t num_scored, StepResult& result) {
  const at::Device device = student_.parameters().options().device;
  const at::ScalarType wide = wide_dtype();
  const at::Tensor clean = batch.tokens.to(device, /*non_blocking=*/true);

  // The contexts that teacher and student read: the clean text, or a walk into its neighbourhood.
  const losses::Source source = [&](const at::Tensor& tokens) -> losses::SourceStates {
    models::Decoder& decoder = neighbourhood_.needs_student() ? student_ : *teacher_;
    at::NoGradGuard no_grad;
    return {decoder.hidden(tokens, {.document_ids = batch.document_ids}), decoder.head().weight()};
  };
  losses::StoredCandidates candidates;
  if (batch.teacher.defined() && neighbourhood_.enabled())
    candidates = {batch.teacher.ids.to(device, /*non_blocking=*/true), batch.teacher.logits.to(device, true)};
  const at::Tensor context = neighbourhood_.perturb(clean, {batch.tokens, batch.document_starts, batch.sample_ids},
                                                    source, candidates, progress);

  const at::Tensor hidden = student_.hidden(context, {.document_ids = batch.document_ids});
  // Gradients of the head come in fp32; leaving the graph before the cast to the compute dtype keeps them so.
  const at::Tensor head = student_.head().weight(wide);
  losses::HeadInputs inputs;
  inputs.hidden = rows(hidden.detach());
  inputs.head = head.detach().to(hidden.scalar_type());
  if (needs_teacher && batch.teacher.defined() && !neighbourhood_.enabled()) {
    const int64_t all = batch.teacher.ids.size(-1);
    inputs.stored_teacher = stored_top_k(batch.teacher, std::min(objective_.top_k().value_or(all), all), device, wide);
  } else if (needs_teacher) {
    at::NoGradGuard no_grad;
    inputs.teacher_hidden = rows(frozen_hidden(*teacher_, context, batch.document_ids));
    inputs.teacher_head = teacher_->head().weight();
  }
  inputs.targets = clean.roll(-1, 1).reshape(-1);  // the last position's is never scored
  inputs.weights =
      batch.loss_mask.to(device, /*non_blocking=*/true).to(wide).div_(static_cast<double>(num_scored)).reshape(-1);
  const losses::HeadResult losses = losses::head_losses(inputs, terms, chunk_tokens_);

  torch::autograd::backward({hidden, head}, {losses.grad_hidden.view_as(hidden), losses.grad_head});
  for (const auto& [name, value] : losses.values) {
    at::Tensor& sum = result.losses[name];
    sum = sum.defined() ? sum + value : value;
  }
}

}  // namespace satin::train
