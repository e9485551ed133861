// Logit distillation over the full vocabulary at temperature T, times T^2 so that T does not change the size of the
// gradient (Hinton, Vinyals, Dean, arXiv 1503.02531, section 2). p = softmax(z / T) of the teacher, q = softmax(s / T)
// of the student.
//   mixture         T^2 (share KL(p || q) + (1 - share) KL(q || p)): forward KL at 1, reverse at 0, between them CAKLD
//                   with gamma = 1 - share (Du et al., BitDistiller, arXiv 2402.10631, eq. 6)
//   Jensen-Shannon  T^2 (share KL(p || m) + (1 - share) KL(q || m)), m = share p + (1 - share) q (Agarwal et al., GKD,
//                   arXiv 2306.13649, eq. 1 with beta = share)
// 0 ln 0 = 0: ids at -inf in both count for nothing. An id that only the second distribution excludes costs infinity.
#pragma once
#include "losses/logit_loss.h"

namespace satin::losses {

class Distillation final : public LogitLoss {
 public:
  explicit Distillation(double temperature, double share = 1, ops::Divergence divergence = ops::Divergence::kMixture)
      : temperature_(temperature), share_(share), divergence_(divergence) {}
  std::string name() const override { return "kd"; }
  bool needs_teacher() const override { return true; }
  void set(ops::LogitLosses& losses, double weight) const override {
    losses.distillation = weight;
    losses.temperature = temperature_;
    losses.share = share_;
    losses.divergence = divergence_;
  }
  int64_t row() const override { return 1; }

 private:
  double temperature_, share_;
  ops::Divergence divergence_;
};

}  // namespace satin::losses
