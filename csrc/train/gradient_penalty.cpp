// Legend: B sequences of a micro-batch, T tokens, H hidden.
#include "train/gradient_penalty.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "losses/cross_entropy.h"
#include "losses/head.h"
#include "losses/schedule.h"
#include "ops/act_quant.h"
#include "optim/clip.h"
#include "quant/held_weights.h"

namespace satin::train {
namespace {

/// Root mean square of each sequence, [B, T, H] -> [B, 1, 1].
at::Tensor rms(const at::Tensor& x_BTH) { return x_BTH.square().mean({1, 2}, /*keepdim=*/true).sqrt(); }

/// The first `most` sequences of a step (0: all): the same ones however it is split into micro-batches.
std::vector<data::Batch> first_sequences(const std::vector<data::Batch>& batches, int64_t most) {
  std::vector<data::Batch> chosen;
  int64_t left = most > 0 ? most : std::numeric_limits<int64_t>::max();
  for (const data::Batch& batch : batches) {
    const int64_t take = std::min(left, batch.tokens.size(0));
    if (take == 0) break;
    data::Batch part;
    part.tokens = batch.tokens.narrow(0, 0, take);
    part.loss_mask = batch.loss_mask.narrow(0, 0, take);
    if (batch.document_ids.defined()) part.document_ids = batch.document_ids.narrow(0, 0, take);
    chosen.push_back(std::move(part));
    left -= take;
  }
  return chosen;
}

int64_t num_scored_sequences(const std::vector<data::Batch>& batches) {
  int64_t count = 0;
  for (const data::Batch& batch : batches) count += batch.loss_mask.any(1).sum().item<int64_t>();
  return count;
}

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
                                 const config::GradientPenalty& config, int64_t chunk_tokens)
    : student_(student), quantized_(quantized), config_(config), chunk_tokens_(chunk_tokens), weight_(config) {
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
  difference.factors = (rms_g / (config_.step * rms_x)).reshape({-1, 1}) * share;
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

at::Tensor GradientPenalty::accumulate(const std::vector<data::Batch>& micro_batches) {
  const at::ScalarType wide = nn::statistics_dtype(student_.parameters().options().compute_dtype);
  const nn::ComputeScope compute(student_.parameters(), wide);
  const std::vector<data::Batch> chosen = first_sequences(micro_batches, config_.sequences);
  const int64_t num_sequences = num_scored_sequences(chosen);
  at::Tensor value = at::zeros({}, at::TensorOptions().dtype(wide).device(student_.parameters().options().device));
  if (num_sequences == 0) return value;
  quant::HeldWeights weights(quantized_, wide, /*trainable=*/true);
  for (const data::Batch& batch : chosen) {
    const Sequences sequences = on_device(batch);
    ops::FrozenRounding rounding;
    const Difference difference = shifts(sequences, num_sequences);
    for (const double sign : {1.0, -1.0}) {
      rounding.replay();
      run_shifted(sequences, difference, sign);
      weights.collect();
    }
    value += difference.value;
  }
  weights.fold();
  return value;
}

std::optional<PenaltyResult> GradientPenalty::add(const std::vector<data::Batch>& micro_batches, int64_t step,
                                                  double progress) {
  if (num_scored_sequences(first_sequences(micro_batches, config_.sequences)) == 0) return std::nullopt;
  const auto& parameters = student_.parameters().all();
  const optim::GradientNorms loss_norms = optim::gradient_norms(parameters);
  const std::vector<at::Tensor> of_losses = take_gradients(parameters);
  PenaltyResult result;
  result.value = accumulate(micro_batches);
  const optim::GradientNorms norms = optim::gradient_norms(parameters);
  // One copy from the device; a quantizer's NaN counts, its norm does not (scales are of another size).
  const at::Tensor all =
      at::stack({loss_norms.model, norms.model, norms.quantizer, result.value}).to(at::kDouble).cpu();
  const double* found = all.const_data_ptr<double>();
  const double penalty_norm = std::isfinite(found[2] + found[3]) ? found[1] : std::nan("");
  const PenaltyWeight::Choice choice =
      weight_.choose(penalty_norm, found[0], losses::share_at(progress, config_.start, config_.ramp));
  combine(parameters, of_losses, choice.weight);
  constexpr int kMostWarnings = 5;
  if (!choice.problem.empty() && num_warnings_++ < kMostWarnings)
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
