// Passes of training through a student that processes share.
#pragma once
#include <functional>

#include "models/decoder.h"
#include "quant/held_weights.h"

namespace satin::train {

/// While it lives, passes through the student bring and take `weights` block by block, and tell of each block whose
/// gradients are done. One process has all weights: nothing is brought or told.
class BlockScope {
 public:
  /// student, sharing and weights outlive this.
  BlockScope(models::Decoder& student, const dist::Sharing& sharing, quant::HeldWeights& weights,
             std::function<void(int64_t block)> gradients_done);
  ~BlockScope();
  BlockScope(const BlockScope&) = delete;
  BlockScope& operator=(const BlockScope&) = delete;

 private:
  models::Decoder& student_;
};

}  // namespace satin::train
