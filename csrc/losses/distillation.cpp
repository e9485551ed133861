#include "losses/distillation.h"

#include "core/error.h"
#include "losses/rows.h"

namespace satin::losses {
namespace {

at::Tensor log_softmax_at(const at::Tensor& logits, double temperature) {
  return at::log_softmax(temperature == 1 ? logits : logits / temperature, 1);
}

}  // namespace

Distillation::Distillation(double temperature, Direction direction) : temperature_(temperature), direction_(direction) {
  SATIN_CHECK(temperature > 0, "temperature ", temperature);
}

at::Tensor Distillation::accumulate(const LogitChunk& chunk, double scale, at::Tensor& grad) const {
  const double T = temperature_;
  at::Tensor log_p = log_softmax_at(chunk.teacher, T);
  at::Tensor log_q = log_softmax_at(chunk.student, T);
  at::Tensor divergence;
  if (direction_ == Direction::forward) {
    const at::Tensor p = log_p.exp();
    at::Tensor terms = log_p.sub_(log_q).masked_fill_(p == 0, 0).mul_(p);
    divergence = terms.sum(1);
    add_weighted(grad, log_q.exp_().sub_(p), chunk.weights, scale * T);
  } else {
    const at::Tensor q = log_q.exp();
    at::Tensor log_ratio = log_q.sub_(log_p).masked_fill_(q == 0, 0);
    divergence = at::mul_out(log_p, log_ratio, q).sum(1);
    add_weighted(grad, log_ratio.sub_(divergence.unsqueeze(1)).mul_(q), chunk.weights, scale * T);
  }
  return weighted_sum(divergence * (T * T), chunk.weights);
}

}  // namespace satin::losses
