// How strong the gradient penalty is in a step: by its weight, or so that its gradient has a given share of the
// losses'.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "config/schema.h"

namespace satin::train {

class PenaltyWeight {
 public:
  /// The penalty's gradient is never longer than this times that of all losses: beyond, it is scaled back.
  static constexpr double kMostRatio = 1;
  /// Of the running mean over the steps that have a penalty, of ln(|losses' gradient| / |unweighted penalty's|): slow
  /// enough that the weight is one of the objective rather than of a batch.
  static constexpr double kDecay = 0.9;

  explicit PenaltyWeight(const config::GradientPenalty& config) : config_(config) {}

  struct Choice {
    double weight = 0;    ///< of the penalty in this step; 0: left out
    double ratio = 0;     ///< weight |penalty's gradient| / |losses' gradient|
    std::string problem;  ///< why it is less than was asked for, or empty
  };
  /// The norms of the two gradients, the penalty's unweighted; `share` in [0, 1]: of the ramp.
  Choice choose(double penalty_norm, double loss_norm, double share);

  /// The running mean, for a checkpoint: it is read back to the same bits. A state without one starts afresh.
  nlohmann::json state() const;
  void load_state(const nlohmann::json& state);

 private:
  config::GradientPenalty config_;
  std::optional<double> log_weight_;  ///< of equal norms
};

}  // namespace satin::train
