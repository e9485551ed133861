#include "train/penalty_weight.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace satin::train {

PenaltyWeight::Choice PenaltyWeight::choose(double penalty_norm, double loss_norm, double share) {
  if (!std::isfinite(loss_norm)) return {0, 0, "left out: the losses' gradient is not finite"};
  if (!std::isfinite(penalty_norm))
    return {0, 0, cat("left out: its gradient is not finite (ratio ", penalty_norm / loss_norm, ")")};
  if (penalty_norm == 0 || share == 0) return {};
  if (loss_norm == 0) return {0, 0, "left out: the losses' gradient is zero"};
  double weight = config_.weight;
  if (config_.gradient_ratio > 0) {
    const double now = std::log(loss_norm / penalty_norm);
    log_weight_ = log_weight_ ? kDecay * *log_weight_ + (1 - kDecay) * now : now;
    weight = config_.gradient_ratio * std::exp(*log_weight_);
  }
  weight *= share;
  const double ratio = weight * penalty_norm / loss_norm;
  if (ratio <= kMostRatio) return {weight, ratio, {}};
  return {kMostRatio * loss_norm / penalty_norm, kMostRatio,
          cat("scaled back: its gradient would be ", ratio, " times as long as that of the losses, at most ",
              kMostRatio, " is allowed")};
}

nlohmann::json PenaltyWeight::state() const {
  nlohmann::json state = nlohmann::json::object();
  if (log_weight_) state["log_weight"] = *log_weight_;
  return state;
}

void PenaltyWeight::load_state(const nlohmann::json& state) {
  log_weight_.reset();
  if (state.contains("log_weight")) log_weight_ = state["log_weight"].get<double>();
}

}  // namespace satin::train
