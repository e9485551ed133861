// Cross-entropy with the next token: L = -ln softmax(s)[target]; dL/ds = softmax(s) - onehot(target).
#pragma once
#include "losses/logit_loss.h"

namespace satin::losses {

/// Holds one more [N, V] buffer while it runs. Targets of rows with weight 0 are not looked at.
class CrossEntropy final : public LogitLoss {
 public:
  std::string name() const override { return "ce"; }
  bool needs_teacher() const override { return false; }
  at::Tensor accumulate(const LogitChunk& chunk, double scale, at::Tensor& grad) const override;
};

}  // namespace satin::losses
