// A loss on next-token logits: its part of the one pass that computes them all (ops/logit_losses.h).
#pragma once
#include <string>

#include "ops/logit_losses.h"

namespace satin::losses {

class LogitLoss {
 public:
  virtual ~LogitLoss() = default;
  virtual std::string name() const = 0;  ///< "ce", "kd", "smoothness"
  virtual bool needs_teacher() const = 0;
  /// Sets the loss's weight and options there.
  virtual void set(ops::LogitLosses& losses, double weight) const = 0;
  /// Its row in the values that ops::logit_losses returns.
  virtual int64_t row() const = 0;
};

}  // namespace satin::losses
