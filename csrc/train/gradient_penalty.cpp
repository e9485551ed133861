// Legend: B sequences of a micro-batch, T tokens, H hidden.
#include "train/gradient_penalty.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "losses/cross_entropy.h"
#include "losses/head.h"
#include "losses/schedule.h"
#include "ops/act_quant.h"
#include "optim/clip.h"
#include "quant/held_weights.h"
#include "train/block_scope.h"

namespace satin::train {
namespace {

/// Root mean square of each sequence, [B, T, H] -> [B, 1, 1].
at::Tensor rms(const at::Tensor& x_BTH) { return x_BTH.square().mean({1, 2}, /*keepdim=*/true).sqrt(); }

/// hidden [B, T, H] of tokens [B, T] -> gradients of the sum of weights [B, T] * cross-entropy.
losses::HeadResult head_gradients(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& tokens,
                                  const at::Tensor& weights, int64_t chunk_tokens) {
  const losses::CrossEntropy cross_entropy;
  losses::HeadInputs inputs;
  inputs.hidden = hidden.detach().reshape({-1, hidden.size(2)});
  inputs.head = head.detach();
  inputs.targets = tokens.roll(-1, 1).reshape(-1);  // the last position's is never scored
  inputs.weights = weights.reshape(-1);
  return losses::head_losses(inputs, {{&cross_entropy, 1.0}}, chunk_tokens);
}

/// The two shifted passes' gradients all but cancel: their sums over processes are not rounded to
/// parallel.reduce_dtype.
dist::Sharing unrounded(dist::Sharing sharing) {
  sharing.reduce_dtype.reset();
  return sharing;
}

/// Gradients that lie aside, parameter by parameter, until those of the penalty are known.
std::vector<at::Tensor> take_gradients(const std::vector<nn::Parameter>& parameters) {
  std::vector<at::Tensor> taken;
  for (const nn::Parameter& parameter : parameters) taken.push_back(std::exchange(parameter.value.mutable_grad(), {}));
  return taken;
}

/// gradient = losses' + weight * penalty's. Weight 0 leaves the penalty's out, NaN included.
void combine(const std::vector<nn::Parameter>& parameters, const std::vector<at::Tensor>& of_losses, double weight) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& gradient = parameters[i].value.mutable_grad();
    if (weight == 0 || !gradient.defined())
      gradient = of_losses[i];
    else if (of_losses[i].defined())
      gradient = at::Tensor(of_losses[i]).add_(gradient, weight);
    else
      gradient.mul_(weight);
  }
}

}  // namespace

struct GradientPenalty::Sequences {
  at::Tensor tokens, document_ids;  ///< [B, T]
  at::Tensor weights;               ///< [B, T] of f: 1 / scored predictions of the sequence, 0 where masked
};

/// What the two shifted passes of a micro-batch differ by, and what its sequences add to the penalty.
struct GradientPenalty::Difference {
  at::Tensor offset;   ///< [B, T, H] e g
  at::Tensor factors;  ///< [B, 1] of f: 1 / (sequences * N * e)
  at::Tensor value;    ///< 0-dim
};

GradientPenalty::GradientPenalty(models::Decoder& student, const quant::Registry& quantized,
                                 const config::GradientPenalty& config, int64_t chunk_tokens,
                                 const dist::Sharing& sharing, int64_t first_sequence)
    : student_(student),
      quantized_(quantized),
      config_(config),
      chunk_tokens_(chunk_tokens),
      sharing_(unrounded(sharing)),
      first_sequence_(first_sequence),
      shared_(student.parameters().all(), sharing_),
      weight_(config) {
  if (config.layer >= student.config().num_layers)
    throw UserError(cat("loss.lgr.layer: expected a layer of the model, 0 to ", student.config().num_layers - 1,
                        ", found ", config.layer));
}

bool GradientPenalty::applies(int64_t step, double progress) const {
  return penalises(config_) && progress >= config_.start && (step + 1) % config_.every_n_steps == 0;
}

GradientPenalty::Sequences GradientPenalty::on_device(const data::Batch& batch) const {
  const nn::BuildOptions& build = student_.parameters().options();
  const at::Tensor mask = batch.loss_mask.to(nn::statistics_dtype(build.compute_dtype));
  return {batch.tokens.to(build.device, /*non_blocking=*/true), batch.document_ids,
          (mask / mask.sum(1, /*keepdim=*/true).clamp_min(1)).to(build.device, /*non_blocking=*/true)};
}

GradientPenalty::Difference GradientPenalty::shifts(const Sequences& s, int64_t num_sequences) {
  std::vector<at::Tensor> taps;
  const at::Tensor hidden = student_.hidden(s.tokens, {.document_ids = s.document_ids, .taps = &taps});
  const losses::HeadResult f = head_gradients(hidden, student_.head().weight(), s.tokens, s.weights, chunk_tokens_);
  const at::Tensor x = taps[config_.layer];
  const at::Tensor g = torch::autograd::grad({hidden}, {x}, {f.grad_hidden.view_as(hidden)})[0];

  const at::NoGradGuard no_grad;
  const at::Tensor rms_x = rms(x), rms_g = rms(g);
  const double share = 1 / static_cast<double>(num_sequences * s.tokens.size(1));
  Difference difference;
  difference.offset = g * (config_.step * rms_x / rms_g).masked_fill(rms_g == 0, 0);
  // Without a gradient (nothing is scored) they are 0, and not NaN where x is 0 too.
  difference.factors = (rms_g / (config_.step * rms_x)).masked_fill(rms_g == 0, 0).reshape({-1, 1}) * share;
  difference.value = g.square().sum() * share;
  return difference;
}

void GradientPenalty::run_shifted(const Sequences& s, const Difference& difference, double sign) {
  const at::Tensor hidden = student_.hidden(
      s.tokens, {.document_ids = s.document_ids, .offset = difference.offset * sign, .offset_layer = config_.layer});
  const at::Tensor head = student_.head().weight();
  losses::HeadResult f = head_gradients(hidden, head, s.tokens, s.weights * difference.factors, chunk_tokens_);
  torch::autograd::backward({hidden, head}, {f.grad_hidden.mul_(sign).view_as(hidden), f.grad_head.mul_(sign)});
}

FirstSequences GradientPenalty::chosen(const std::vector<data::Batch>& micro_batches) const {
  return first_sequences(micro_batches, config_.sequences, first_sequence_, *sharing_.world);
}

at::Tensor GradientPenalty::accumulate(const FirstSequences& chosen) {
  const at::ScalarType wide = nn::statistics_dtype(student_.parameters().options().compute_dtype);
  const nn::ComputeScope compute(student_.parameters(), wide);
  at::Tensor value = at::zeros({}, at::TensorOptions().dtype(wide).device(student_.parameters().options().device));
  if (chosen.num_scored == 0) return value;
  quant::HeldWeights weights(quantized_, wide, /*trainable=*/true, sharing_);
  bool last = false;
  const BlockScope blocks(student_, sharing_, weights, [&](int64_t block) {
    if (last) shared_.start_reduce(block);
  });
  for (size_t i = 0; i < chosen.batches.size(); ++i) {
    const Sequences sequences = on_device(chosen.batches[i]);
    ops::FrozenRounding rounding;
    // Its backward ends at the layer's input: blocks that it brought and did not take serve the next forward.
    const Difference difference = shifts(sequences, chosen.num_scored);
    for (const double sign : {1.0, -1.0}) {
      last = i + 1 == chosen.batches.size() && sign < 0;
      weights.begin_micro_batch(last);
      rounding.replay();
      run_shifted(sequences, difference, sign);
      weights.collect();
    }
    value += difference.value;
  }
  shared_.start_rest();
  weights.fold();
  shared_.finish_reduces();
  sharing_.world->all_reduce(value).wait();
  return value;
}

std::optional<PenaltyResult> GradientPenalty::add(const std::vector<data::Batch>& micro_batches, int64_t step,
                                                  double progress) {
  const FirstSequences sequences = chosen(micro_batches);
  if (sequences.num_scored == 0) return std::nullopt;
  const auto& parameters = student_.parameters().all();
  const optim::GradientNorms loss_norms = optim::gradient_norms(parameters, sharing_.shards.get());
  const std::vector<at::Tensor> of_losses = take_gradients(parameters);
  PenaltyResult result;
  result.value = accumulate(sequences);
  const optim::GradientNorms norms = optim::gradient_norms(parameters, sharing_.shards.get());
  // One copy from the device; a quantizer's NaN counts, its norm does not (scales are of another size).
  at::Tensor all = at::stack({loss_norms.model, norms.model, norms.quantizer, result.value}).to(at::kDouble);
  sharing_.world->broadcast(all, 0).wait();  // copies of the model may have summed in another order
  all = all.cpu();
  const double* found = all.const_data_ptr<double>();
  const double penalty_norm = std::isfinite(found[2] + found[3]) ? found[1] : std::nan("");
  const PenaltyWeight::Choice choice =
      weight_.choose(penalty_norm, found[0], losses::share_at(progress, config_.start, config_.ramp));
  combine(parameters, of_losses, choice.weight);
  constexpr int kMostWarnings = 5;
  if (sharing_.world->rank() == 0 && !choice.problem.empty() && num_warnings_++ < kMostWarnings)
    log_warning(cat("loss.lgr: step ", step + 1, ": the penalty is ", choice.problem,
                    num_warnings_ == kMostWarnings ? "; later steps are not named" : ""));
  result.weight = choice.weight;
  result.ratio = choice.ratio;
  return result;
}

std::string penalty_text(const config::GradientPenalty& lgr, int64_t sequences_per_step, int64_t num_steps) {
  const int64_t sequences = lgr.sequences > 0 ? std::min(lgr.sequences, sequences_per_step) : sequences_per_step;
  const auto first = static_cast<int64_t>(std::ceil(lgr.start * static_cast<double>(num_steps)));
  return cat("gradient penalty at layer ", lgr.layer, ": ",
             lgr.weight > 0 ? cat("weight ", lgr.weight) : cat("gradient ratio ", lgr.gradient_ratio), ", from step ",
             first + 1, " on every ", lgr.every_n_steps == 1 ? "step" : cat(lgr.every_n_steps, " steps"), ", on ",
             sequences, " of ", sequences_per_step, " sequences, three fp32 passes each");
}

}  // namespace satin::train
