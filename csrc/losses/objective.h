// The training objective of a configuration: which losses, with which weight at which point of training.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "config/schema.h"
#include "losses/head.h"

namespace satin::losses {

class Objective {
 public:
  /// num_tokens: ids from it on are padding of the vocabulary; 0: there is none. Throws UserError naming the key.
  explicit Objective(const config::Loss& loss, int64_t num_tokens = 0);

  /// Every loss with a weight in the configuration, at `progress` = steps done / all steps, in [0, 1]. Before its start
  /// a loss is there with weight 0. The terms point into this object.
  std::vector<Term> terms(double progress) const;
  /// Whether some loss with weight at this point of training reads the teacher.
  bool needs_teacher(double progress) const;
  /// Hidden-state distillation; weight 0: there is none.
  const config::HiddenStates& hidden() const { return config_.hidden; }
  /// Of the smoothness loss, when it is configured.
  std::optional<int64_t> top_k() const;
  /// Whether anything in training does, sampled neighbours included.
  bool needs_teacher() const;

 private:
  config::Loss config_;
  struct Part {
    std::unique_ptr<LogitLoss> loss;
    double weight;
    double start, ramp;  ///< fractions of training
  };
  std::vector<Part> parts_;
};

}  // namespace satin::losses
