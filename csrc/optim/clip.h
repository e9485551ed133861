// Gradient norms, clipping by them, and the guard's search for what is not finite.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "dist/communicator.h"
#include "nn/parameters.h"

namespace satin::optim {

/// Euclidean norms over all gradients of a set, before clipping: 0-dim tensors on the gradients' device (zero for a
/// set without gradients). Two sets, because a scale's gradient sums over a whole group of weights.
struct GradientNorms {
  at::Tensor model;      ///< weights, embeddings, norms and biases
  at::Tensor quantizer;  ///< scales and zero points
};

/// No host synchronisation. Dtype: float, double when a gradient is double. `shards`: processes that own the parameters
/// together by rows; the norms are then over all of these, and the same on each.
GradientNorms gradient_norms(const std::vector<nn::Parameter>& parameters, dist::Communicator* shards = nullptr);

/// Multiplies the gradients of each set by min(1, max_norm / (norm + 1e-6)) in place; no host synchronisation.
/// Does nothing when max_norm is 0, nor to a set whose norm is not finite (so that non_finite_gradients still finds the
/// culprit: torch would multiply all of them by NaN). Source: Pascanu et al. 2013, algorithm 1, as
/// torch.nn.utils.clip_grad_norm_.
void clip_gradients(const std::vector<nn::Parameter>& parameters, const GradientNorms& norms, double max_norm);

/// 1 where one of the norms is NaN or infinite, else 0: a 0-dim float tensor on the gradients' device, for AdamW::step.
at::Tensor non_finite(const GradientNorms& norms);

/// Names of the parameters whose gradients hold a NaN or infinity, in the parameters' order; synchronises.
/// Gradients flow from the last layer to the first, so the last name is the nearest to the cause.
std::vector<std::string> non_finite_gradients(const std::vector<nn::Parameter>& parameters);

/// The same for the parameters' values.
std::vector<std::string> non_finite_values(const std::vector<nn::Parameter>& parameters);

}  // namespace satin::optim
