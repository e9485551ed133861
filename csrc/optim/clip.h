// Gradient norms, what clips by them, and the guard's search for what is not finite.
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

/// What the gradients of each set are multiplied by where they are used (AdamW::step): 0-dim tensors beside the norms,
/// undefined for 1.
struct ClipFactors {
  at::Tensor model, quantizer;
};

/// min(1, max_norm / (norm + 1e-6)), and 1 where max_norm is 0 or the norm is not finite; no host synchronisation.
/// Source: Pascanu et al. 2013, algorithm 1, as torch.nn.utils.clip_grad_norm_.
ClipFactors clip_factors(const GradientNorms& norms, double max_norm);

/// 1 where one of the norms is NaN or infinite, else 0: a 0-dim float tensor on the gradients' device, for AdamW::step.
at::Tensor non_finite(const GradientNorms& norms);

/// Names of the parameters whose gradients hold a NaN or infinity, in the parameters' order; synchronises.
/// Gradients flow from the last layer to the first, so the last name is the nearest to the cause.
std::vector<std::string> non_finite_gradients(const std::vector<nn::Parameter>& parameters);

/// The same for the parameters' values.
std::vector<std::string> non_finite_values(const std::vector<nn::Parameter>& parameters);

}  // namespace satin::optim
