#include "ptq/clipping.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "optim/adamw.h"
#include "quant/clip.h"

namespace satin::ptq {
namespace {

/// The scheme with the same codes whose scale and zero point are free.
quant::Scheme free_scheme(quant::Scheme scheme) {
  scheme.method = quant::Method::kLsqAsymmetric;
  return scheme;
}

}  // namespace

Clips initial_clips(const at::Tensor& weight, const quant::Scheme& scheme, const at::Tensor& importance) {
  SATIN_CHECK(!scheme.has_columns(), quant::describe(scheme), ": clips of columns with other bits");
  const at::NoGradGuard no_grad;
  quant::Scheme extremes = free_scheme(scheme);
  extremes.init = quant::Init::kData;
  const at::Tensor whole = quant::initial_state(weight, extremes).scale;
  at::Tensor high = at::full_like(whole, quant::kInitialClip);
  if (scheme.init != quant::Init::kData) {
    const at::Tensor found = quant::initial_state(weight, free_scheme(scheme), importance).scale;
    high = at::logit((found / whole).clamp_(0.1, 1 / (1 + std::exp(-quant::kInitialClip))));
  }
  return {high.requires_grad_(), high.clone().requires_grad_()};
}

at::Tensor clipped_weight(const at::Tensor& weight, const Clips& clips, const quant::Scheme& scheme,
                          at::ScalarType dtype) {
  const ops::FakeQuantGrid grid = quant::kernel_grid(scheme, weight.size(1));
  const quant::QuantizerState state = quant::clipped_state(weight, clips.high, clips.low, grid);
  return ops::fake_quant(weight.detach(), state.scale, state.zero_point, grid, dtype);
}

LearnedClips learn_clips(const at::Tensor& weight, const quant::Scheme& scheme, const LayerObjective& objective,
                         Clips start, int64_t steps, double learning_rate) {
  config::Optimizer rates;
  rates.clip_learning_rate = learning_rate;
  rates.beta2 = 0.999;
  optim::AdamW adam({{"high", start.high, nn::Role::kClip, start.high.sizes().vec()},
                     {"low", start.low, nn::Role::kClip, start.low.sizes().vec()}},
                    rates);
  const at::Tensor w = weight.detach();
  at::Tensor first, least;
  Clips best;
  for (int64_t step = 0; step <= steps; ++step) {
    at::Tensor rounded;
    {
      const at::AutoGradMode enable_grad(true);
      rounded = clipped_weight(w, start, scheme, w.scalar_type());
    }
    const at::NoGradGuard no_grad;
    const at::Tensor error = rounded.detach() - w;
    const at::Tensor slope = objective.slope(error);
    const at::Tensor value = LayerObjective::value(error, slope);
    if (step == 0) {
      first = least = value;
      best = {start.high.detach().clone(), start.low.detach().clone()};
    }
    const at::Tensor better = value < least;
    least = at::where(better, value, least);
    best = {at::where(better, start.high.detach(), best.high), at::where(better, start.low.detach(), best.low)};
    if (step == steps) break;
    rounded.backward(slope);
    adam.step(1 - static_cast<double>(step) / static_cast<double>(steps));
    adam.zero_grad();
  }
  return {best, first.item<double>(), least.item<double>()};
}

void hold(quant::QuantLinear& linear, const Clips& clips) {
  const at::NoGradGuard no_grad;
  const quant::QuantizerParameters& parameters = linear.quantizer().parameters();
  if (parameters.clip_high.defined()) {
    at::Tensor(parameters.clip_high).copy_(clips.high);
    at::Tensor(parameters.clip_low).copy_(clips.low);
    return;
  }
  const quant::QuantizerState state =
      quant::clipped_state(linear.master_weight(), clips.high, clips.low, linear.grid());
  // As the forward rounds them, so that a later reading of the parameters changes nothing.
  const double top = (1 << linear.scheme().bits) - 1;
  hold(linear, {linear.master_weight(),
                {ops::effective_scale(state.scale, linear.grid()), state.zero_point.clamp(0, top).round()}});
}

}  // namespace satin::ptq
