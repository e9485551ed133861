// Logit distillation over the full vocabulary at temperature T, times T^2 so that T does not change the size of the
// gradient (Hinton, Vinyals, Dean, arXiv 1503.02531, section 2). p = softmax(z / T) of the teacher, q = softmax(s / T)
// of the student.
//   forward  L = T^2 sum p ln(p / q)    dL/ds = T (q - p)
//   reverse  L = T^2 sum q ln(q / p)    dL/ds = T q (ln(q / p) - sum q ln(q / p))
// 0 ln 0 = 0: ids at -inf in both count for nothing. An id that only the second distribution excludes costs infinity.
#pragma once
#include "losses/logit_loss.h"

namespace satin::losses {

/// Holds three more [N, V] buffers while it runs.
class Distillation final : public LogitLoss {
 public:
  enum class Direction { forward, reverse };
  explicit Distillation(double temperature, Direction direction = Direction::forward);
  std::string name() const override { return "kd"; }
  bool needs_teacher() const override { return true; }
  at::Tensor accumulate(const LogitChunk& chunk, double scale, at::Tensor& grad) const override;

 private:
  double temperature_;
  Direction direction_;
};

}  // namespace satin::losses
