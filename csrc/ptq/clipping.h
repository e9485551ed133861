// Learned weight clipping after training: each group's range shrinks by two learned factors (quant/clip.h).
// Source: Shao et al. 2024 (OmniQuant), with either objective of this room.
#pragma once
#include "ptq/layer_objective.h"
#include "ptq/result.h"

namespace satin::ptq {

/// Logits of the factors, leaves [N, G].
struct Clips {
  at::Tensor high, low;
};

/// Where they start: sigmoid(4) (Init::kData), or the ratio that a clip search finds best for the group.
Clips initial_clips(const at::Tensor& weight, const quant::Scheme& scheme, const at::Tensor& importance = {});

/// The weight under these clips in `dtype`, differentiable in them.
at::Tensor clipped_weight(const at::Tensor& weight, const Clips& clips, const quant::Scheme& scheme,
                          at::ScalarType dtype);

struct LearnedClips {
  Clips clips;
  double before, after;  ///< the objective
};
/// Adam on the objective alone, without data; the best clips met, so `after` is never above `before`. No sync with the
/// device in the loop.
LearnedClips learn_clips(const at::Tensor& weight, const quant::Scheme& scheme, const LayerObjective& objective,
                         Clips start, int64_t steps, double learning_rate);

/// Lets the layer hold them: as clips, or as the scale and zero point that follow from them.
void hold(quant::QuantLinear& linear, const Clips& clips);

}  // namespace satin::ptq
