// Smoothness preservation: KL to the temperature-smoothed teacher inside its top k, with everything else as one bucket.
// Teacher logits z, student logits s, K = top-k(z) with ties to the lower id; p, q = softmax over K of z/tau, s/tau;
// P, Q = mass of K under softmax(z), softmax(s) over all columns; sigma = softmax(s).
//   L = P tau^2 KL(p || q) + P ln(P/Q) + (1-P) ln((1-P)/(1-Q))
//   dL/ds_i = P tau (q_i - p_i) + (Q-P) sigma_i/Q   in K,     (P-Q) sigma_i/(1-Q)   outside
// tau = 1: the exact KL with everything outside K merged. k >= V: no tail, tau^2 times the exact KL at tau.
// No clamps, 0 ln 0 = 0, so L(teacher, teacher) = 0. Ids at -inf (teacher) and padding columns are never in K; they
// count in the rest of the vocabulary with whatever mass they have. Source: own formulation for the neighbourhood of
// arXiv 2605.08894, which states none.
#pragma once
#include "losses/logit_loss.h"

namespace satin::losses {

class Smoothness final : public LogitLoss {
 public:
  /// num_tokens: ids from it on are padding of the vocabulary; 0: there is none.
  Smoothness(int64_t top_k, double temperature, int64_t num_tokens = 0)
      : top_k_(top_k), temperature_(temperature), num_tokens_(num_tokens) {}
  std::string name() const override { return "smoothness"; }
  bool needs_teacher() const override { return true; }
  void set(ops::LogitLosses& losses, double weight) const override {
    losses.smoothness = weight;
    losses.smoothness_temperature = temperature_;
    losses.top_k = top_k_;
    losses.num_tokens = num_tokens_;
  }
  int64_t row() const override { return 2; }

 private:
  int64_t top_k_;
  double temperature_;
  int64_t num_tokens_;
};

}  // namespace satin::losses
