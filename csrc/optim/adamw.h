// AdamW (ops/adamw.h), grouped by what a parameter is.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "nn/parameters.h"
#include "ops/adamw.h"
#include "optim/clip.h"

namespace satin::optim {

/// With g the gradient times the clip factor of its set, m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  s = learning
/// rate * multiplier of the group and t its steps: w = w - s decay w - s (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) +
/// eps). Source: Loshchilov and Hutter 2019 (Decoupled Weight Decay Regularization), algorithm 2, as torch.optim.AdamW.
///
/// Groups: weights (learning_rate, weight_decay), embeddings, norms and biases (learning_rate), scales
/// (scale_learning_rate), zero points (zero_point_learning_rate).
/// Dtypes: float and double; state has the parameter's dtype and device.
/// A parameter without a gradient is left alone and its step count does not grow.
class AdamW {
 public:
  /// Only parameters that require a gradient are kept. Their values are shared handles, never replaced.
  AdamW(const std::vector<nn::Parameter>& parameters, const config::Optimizer& options);

  /// One update with the gradients now in the parameters, which stay as they are; no host synchronisation.
  /// `skip`: a scalar float tensor on the parameters' device; where it is 1 nothing changes, neither weights nor state
  /// (see non_finite in clip.h).
  void step(double multiplier, const ClipFactors& clip = {}, const at::Tensor& skip = {});

  /// Drops the gradients.
  void zero_grad();

  /// The state by name, shared with the optimizer: "<parameter>.exp_avg", ".exp_avg_sq", ".step" (float scalar).
  std::vector<std::pair<std::string, at::Tensor>> state() const;

  /// Copies every state tensor from `find(name)` (any device, same shape; undefined means absent).
  /// Errors: UserError that names all missing and misshapen tensors; the state is then unchanged.
  void load_state(const std::function<at::Tensor(const std::string&)>& find);

  /// Memory of the state.
  int64_t state_bytes() const;

 private:
  struct Slot {
    nn::Parameter parameter;
    double learning_rate, weight_decay;
    at::Tensor exp_avg, exp_avg_sq, step;
  };
  /// Slots that one call updates: same dtype and device.
  struct Group {
    std::vector<size_t> slots;
    at::Tensor steps;  ///< [slots], of which theirs are parts
  };
  void update(const Group& group, double multiplier, const ClipFactors& clip, const at::Tensor& skip);

  kernels::AdamWBetas betas_;
  std::vector<Slot> slots_;  ///< in the parameters' order
  std::vector<Group> groups_;
};

}  // namespace satin::optim
