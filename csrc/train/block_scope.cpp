#include "train/block_scope.h"

#include <utility>

namespace satin::train {

BlockScope::BlockScope(models::Decoder& student, const dist::Sharing& sharing, quant::HeldWeights& weights,
                       std::function<void(int64_t)> gradients_done)
    : student_(student) {
  if (sharing.world->size() == 1) return;
  student.observe_blocks([&weights, done = std::move(gradients_done)](models::BlockEvent event, int64_t block) {
    using enum models::BlockEvent;
    if (event == kBeforeForward) weights.before_forward(block);
    if (event == kAfterForward) weights.after_forward(block);
    if (event == kBeforeBackward) weights.before_backward(block);
    if (event != kAfterBackward) return;
    weights.after_backward(block);
    done(block);
  });
}

BlockScope::~BlockScope() { student_.observe_blocks({}); }

}  // namespace satin::train
