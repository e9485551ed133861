// Shared by the tests of losses.
#pragma once
#include <gtest/gtest.h>

#include "losses/logit_loss.h"

namespace satin::test {

using losses::LogitLoss;

/// One chunk of tokens: student and teacher [N, V], targets and weights [N].
struct LogitChunk {
  at::Tensor student, teacher, targets, weights;
};

inline at::Tensor random_logits(int64_t n, int64_t v, uint64_t seed, double spread = 2) {
  at::manual_seed(seed);
  return at::randn({n, v}, at::kDouble) * spread;
}

struct Outcome {
  at::Tensor value, grad;
};
/// sum_n weights_n L_n and its gradient, times `scale`.
inline Outcome evaluate(const LogitLoss& loss, const LogitChunk& chunk, double scale = 1) {
  ops::LogitLosses losses;
  loss.set(losses, scale);
  const at::Tensor& student = chunk.student;
  at::Tensor grad = at::full_like(student, NAN);  // overwritten
  const at::Tensor targets =
      chunk.targets.defined() ? chunk.targets : at::zeros({student.size(0)}, student.options().dtype(at::kLong));
  const at::Tensor values = ops::logit_losses(losses, student, chunk.teacher, targets, chunk.weights, grad);
  return {values[loss.row()].sum(), grad};
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble).cpu() - b.to(at::kDouble).cpu()).abs().max().item<double>();
}

/// Size of the difference over the size of `want`.
inline double relative_error(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor a = got.to(at::kDouble).cpu(), b = want.to(at::kDouble).cpu();
  return (a - b).norm().item<double>() / std::max(b.norm().item<double>(), 1e-300);
}

}  // namespace satin::test
