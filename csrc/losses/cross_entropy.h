// Cross-entropy with the next token: L = -ln softmax(s)[target].
#pragma once
#include "losses/logit_loss.h"

namespace satin::losses {

/// Targets of rows with weight 0 are not looked at.
class CrossEntropy final : public LogitLoss {
 public:
  std::string name() const override { return "ce"; }
  bool needs_teacher() const override { return false; }
  void set(ops::LogitLosses& losses, double weight) const override { losses.cross_entropy = weight; }
  int64_t row() const override { return 0; }
};

}  // namespace satin::losses
