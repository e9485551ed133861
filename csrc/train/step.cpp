// Legend: B windows, T tokens, H hidden, V vocabulary, N = B T.
#include "train/step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "ops/to_device.h"
#include "quant/held_weights.h"
#include "train/block_scope.h"
#include "train/compared_states.h"
#include "train/stored_teacher.h"

namespace satin::train {
namespace {

at::Tensor rows(const at::Tensor& x_BTH) { return x_BTH.reshape({-1, x_BTH.size(-1)}); }

losses::CleanWindows windows_of(const data::Batch& batch) {
  return {batch.tokens, batch.document_starts, batch.sample_ids};
}

/// The teacher's losses of `terms`, times `share`; the others as they are, or not.
std::vector<losses::Term> scaled(const std::vector<losses::Term>& terms, double share, bool with_others) {
  std::vector<losses::Term> scaled;
  for (const losses::Term& term : terms)
    if (term.loss->needs_teacher())
      scaled.push_back({term.loss, term.weight * share});
    else if (with_others)
      scaled.push_back(term);
  return scaled;
}

/// Adds a micro-batch's losses to the step's.
void add(const std::map<std::string, at::Tensor>& values, StepResult& result) {
  for (const auto& [name, value] : values) {
    at::Tensor& sum = result.losses[name];
    sum = sum.defined() ? sum + value : value;
  }
}

}  // namespace

/// What student and teacher read: T tokens of each window, or 2T with branches.
struct TrainingStep::Context {
  at::Tensor text;    ///< [B, T] the clean tokens
  at::Tensor tokens;  ///< [B, T or 2T]
  models::ForwardOptions options;
};

/// A step's objective at its point of training.
struct TrainingStep::Now {
  double progress;
  std::vector<losses::Term> terms;
  bool needs_teacher;
  double num_scored;  ///< of the text
  double share;       ///< of the text among all that is scored, branches included
};

TrainingStep::TrainingStep(models::Decoder& student, const quant::Registry& quantized, models::Decoder* teacher,
                           const losses::Objective& objective, const losses::Neighbourhood& neighbourhood,
                           const StepOptions& options, const dist::Sharing& sharing)
    : student_(student),
      quantized_(quantized),
      teacher_(teacher),
      objective_(objective),
      neighbourhood_(neighbourhood),
      options_(options),
      sharing_(sharing),
      shared_(student.parameters().all(), sharing),
      lookups_(student, quantized, sharing, shared_) {}

at::ScalarType TrainingStep::wide_dtype() const {
  return student_.parameters().options().compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
}

StepResult TrainingStep::run(const std::vector<data::Batch>& micro_batches, double progress, bool stop) {
  StepResult result;
  result.stopped = stop;
  std::vector<losses::ScoredBranches> branches(micro_batches.size());
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    const data::Batch& batch = micro_batches[i];
    if (!batch.idle) result.num_tokens += batch.tokens.numel();
    result.num_scored += batch.loss_mask.sum().item<int64_t>();
    if (neighbourhood_.branches(progress))
      branches[i] =
          losses::ScoredBranches(neighbourhood_.chosen(windows_of(batch), progress).logical_and_(batch.loss_mask));
    result.num_branches += branches[i].size();
  }
  // The device quantizes while the host asks the others.
  quant::HeldWeights weights(quantized_, student_.parameters().options().compute_dtype, /*trainable=*/true, sharing_);
  count_all(micro_batches.back(), progress, result);
  if (result.stopped) {
    weights.bring_all();  // what is under way needs its memory
    return result;
  }
  if (result.num_scored == 0) throw UserError("a training step has no token to score: do the documents have answers?");
  const auto num_scored = static_cast<double>(result.num_scored);
  const Now now{progress, objective_.terms(progress), objective_.needs_teacher(progress), num_scored,
                num_scored / static_cast<double>(result.num_scored + result.num_branches)};
  SATIN_CHECK(
      teacher_ || !now.needs_teacher || (losses_are_stored(micro_batches[0]) && objective_.hidden().weight == 0),
      "a loss needs a teacher");
  bool last = false;
  const BlockScope blocks(student_, sharing_, weights, [&](int64_t block) {
    if (last) shared_.start_reduce(block);
  });
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    last = i + 1 == micro_batches.size();
    weights.begin_micro_batch(last);
    run_micro_batch(micro_batches[i], branches[i], now, last, result);
    weights.collect();
  }
  shared_.start_rest();
  weights.fold(options_.damping);
  shared_.finish_reduces();
  lookups_.finish();
  result.total = at::zeros({}, at::TensorOptions().dtype(wide_dtype()).device(student_.parameters().options().device));
  for (const auto& term : now.terms)
    if (term.weight != 0) result.total += result.losses.at(term.loss->name()) * term.weight;
  if (const double weight = objective_.hidden().weight; weight != 0)
    result.total += result.losses.at("hidden") * weight;
  return result;
}

bool TrainingStep::losses_are_stored(const data::Batch& batch) const {
  return batch.teacher.tokens.defined() || (batch.teacher.defined() && !neighbourhood_.enabled());
}

void TrainingStep::count_all(const data::Batch& last, double progress, StepResult& result) {
  const at::Tensor& copies = last.teacher.tokens;
  const int64_t looked_up = copies.defined()                    ? copies.numel()
                            : neighbourhood_.branches(progress) ? 2 * last.tokens.numel()
                                                                : last.tokens.numel();
  dist::Communicator& world = *sharing_.world;
  std::vector<int64_t> of_each(static_cast<size_t>(world.size()), looked_up);
  if (world.size() > 1) {
    std::vector<double> counts{static_cast<double>(result.num_tokens), static_cast<double>(result.num_scored),
                               static_cast<double>(result.num_branches), static_cast<double>(result.stopped)};
    const size_t num_counts = counts.size();
    counts.resize(num_counts + of_each.size());
    counts[num_counts + static_cast<size_t>(world.rank())] = static_cast<double>(looked_up);
    const std::vector<double> sums = world.sum(counts);
    result.num_tokens = static_cast<int64_t>(sums[0]);
    result.num_scored = static_cast<int64_t>(sums[1]);
    result.num_branches = static_cast<int64_t>(sums[2]);
    result.stopped = sums[3] > 0;
    std::transform(sums.begin() + static_cast<std::ptrdiff_t>(num_counts), sums.end(), of_each.begin(),
                   [](double count) { return static_cast<int64_t>(count); });
  }
  lookups_.begin_step(of_each);
}

TrainingStep::Context TrainingStep::read(const data::Batch& batch, double progress) {
  const at::Device device = student_.parameters().options().device;
  Context context;
  context.text = batch.tokens.to(device, /*non_blocking=*/true);
  context.options.document_ids = batch.document_ids;
  if (batch.teacher.tokens.defined()) {
    context.tokens = batch.teacher.tokens.to(device, /*non_blocking=*/true);
    return context;
  }
  const losses::Source source = [&](const at::Tensor& tokens) -> losses::SourceStates {
    models::Decoder& decoder = neighbourhood_.needs_student() ? student_ : *teacher_;
    at::NoGradGuard no_grad;
    return {decoder.hidden(tokens, {.document_ids = batch.document_ids}), decoder.head().weight()};
  };
  losses::StoredCandidates candidates;
  if (batch.teacher.defined() && neighbourhood_.enabled())
    candidates = {batch.teacher.ids.to(device, /*non_blocking=*/true), batch.teacher.logits.to(device, true)};
  context.tokens = neighbourhood_.perturb(context.text, windows_of(batch), source, candidates, progress,
                                          /*always_reads=*/sharing_.gathers_blocks);
  if (!neighbourhood_.branches(progress)) return context;
  context.tokens = at::cat({context.text, context.tokens}, 1);
  context.options.positions = losses::branch_positions(batch.tokens.size(1));
  context.options.mask = losses::branch_mask(batch.tokens.size(1), device);
  if (batch.document_ids.defined())
    context.options.document_ids = ops::to_device(batch.document_ids.repeat({1, 2}), device);
  return context;
}

void TrainingStep::run_micro_batch(const data::Batch& batch, const losses::ScoredBranches& branches, const Now& now,
                                   bool last, StepResult& result) {
  const at::Device device = student_.parameters().options().device;
  const at::ScalarType wide = wide_dtype();
  const Context context = read(batch, now.progress);
  const int64_t length = batch.tokens.size(1);
  const auto of_text = [&](const at::Tensor& x_BTH) { return rows(x_BTH.narrow(1, 0, length)); };

  ComparedStates states(objective_.hidden(), student_.config().num_layers);
  models::ForwardOptions of_student = states.of_student(context.options);
  of_student.recompute = options_.recompute;
  of_student.input_embeddings = lookups_.look_up(context.tokens);
  const at::Tensor hidden = student_.hidden(context.tokens, of_student);
  // Gradients of the head come in fp32; leaving the graph before the cast to the compute dtype keeps them so.
  const at::Tensor head = student_.head().weight(wide);
  losses::HeadInputs inputs;
  inputs.hidden = of_text(hidden.detach());
  inputs.head = head.detach().to(hidden.scalar_type());
  const at::Tensor weights = batch.loss_mask.to(device, /*non_blocking=*/true).to(wide).div_(now.num_scored);
  at::Tensor teacher_hidden;
  if (now.needs_teacher && losses_are_stored(batch)) {
    const int64_t all = batch.teacher.ids.size(-1);
    inputs.stored_teacher = stored_top_k(batch.teacher, std::min(objective_.top_k().value_or(all), all), device, wide);
  } else if (now.needs_teacher) {
    at::NoGradGuard no_grad;
    at::Tensor scored;  // of the whole context
    if (states.enabled()) scored = weights * now.share;
    if (states.enabled() && branches.defined()) {
      const at::Tensor beside = at::full({branches.size(), 1}, now.share / now.num_scored, weights.options());
      scored = at::cat({scored, branches.scatter(beside).squeeze(2)}, 1);
    }
    teacher_hidden = teacher_->hidden(context.tokens, states.of_teacher(context.options, scored));
    inputs.teacher_hidden = of_text(teacher_hidden);
    inputs.teacher_head = teacher_->head().weight();
  }
  inputs.targets = context.text.roll(-1, 1).reshape(-1);  // the last position's is never scored
  inputs.weights = weights.reshape(-1);
  losses::HeadResult losses = losses::head_losses(inputs, scaled(now.terms, now.share, true), options_.chunk_tokens);
  at::Tensor grad_hidden = losses.grad_hidden.view({-1, length, hidden.size(2)});
  if (now.share != 1)
    for (const losses::Term& term : now.terms)
      if (term.weight != 0 && term.loss->needs_teacher()) losses.values.at(term.loss->name()).mul_(now.share);
  add(losses.values, result);

  if (states.enabled()) add({{"hidden", states.value()}}, result);
  if (branches.defined()) {
    inputs.hidden = branches.rows_of(hidden.detach());
    if (now.needs_teacher) inputs.teacher_hidden = branches.rows_of(teacher_hidden);
    inputs.targets = inputs.targets.narrow(0, 0, branches.size());  // not looked at
    inputs.weights = at::full({branches.size()}, now.share / now.num_scored, inputs.weights.options());
    inputs.grad_head = losses.grad_head;
    const losses::HeadResult beside = losses::head_losses(inputs, scaled(now.terms, 1, false), options_.chunk_tokens);
    grad_hidden = at::cat({grad_hidden, branches.scatter(beside.grad_hidden)}, 1);
    add(beside.values, result);
  }
  torch::autograd::variable_list roots{hidden}, gradients{grad_hidden};
  states.add_to(roots, gradients);
  if (lookups_.by_rows()) {
    inputs.grad_head.reset();
    lookups_.add_head(head, std::exchange(losses.grad_head, {}), last);
  } else {
    roots.push_back(head);
    gradients.push_back(losses.grad_head);
  }
  torch::autograd::backward(roots, gradients);
  lookups_.collect(last);
}

}  // namespace satin::train
