#include "losses/cross_entropy.h"

#include "losses/rows.h"

namespace satin::losses {

at::Tensor CrossEntropy::accumulate(const LogitChunk& chunk, double scale, at::Tensor& grad) const {
  const at::Tensor targets = chunk.targets.masked_fill(chunk.weights == 0, 0).unsqueeze(1);
  at::Tensor slope = at::log_softmax(chunk.student, 1);
  const at::Tensor log_probability = slope.gather(1, targets);
  slope.exp_().scatter_(1, targets, log_probability.expm1());
  add_weighted(grad, slope, chunk.weights, scale);
  return weighted_sum(-log_probability.squeeze(1), chunk.weights);
}

}  // namespace satin::losses
