// Shapes: N tokens, V vocabulary, K the top k ids of the teacher.
#include "losses/smoothness.h"

#include <limits>

#include "core/error.h"
#include "losses/rows.h"
#include "losses/top_k.h"

namespace satin::losses {
namespace {

constexpr double kExcluded = -std::numeric_limits<double>::infinity();

/// sum over the last dimension of p ln(p / q), 0 where p is 0.
at::Tensor divergence_terms(const at::Tensor& p, const at::Tensor& log_p, const at::Tensor& log_q) {
  return ((log_p - log_q) * p).masked_fill_(p == 0, 0);
}

/// Mass inside and outside K, with logarithms that stay exact when either is tiny. All [N].
struct Masses {
  at::Tensor log_inside, log_outside, inside, outside;
};
Masses masses(const at::Tensor& log_sum_inside, const at::Tensor& log_sum_outside) {
  const at::Tensor log_odds = log_sum_inside - log_sum_outside;
  const at::Tensor log_inside = at::log_sigmoid(log_odds), log_outside = at::log_sigmoid(-log_odds);
  return {log_inside, log_outside, log_inside.exp(), log_outside.exp()};
}

/// Q - P by the pair that does not cancel.
at::Tensor excess(const Masses& student, const Masses& teacher) {
  return at::where((student.inside > 0.5).logical_and(teacher.inside > 0.5), teacher.outside - student.outside,
                   student.inside - teacher.inside);
}

}  // namespace

Smoothness::Smoothness(int64_t top_k, double temperature, int64_t num_tokens)
    : top_k_(top_k), temperature_(temperature), num_tokens_(num_tokens), exact_(temperature) {
  SATIN_CHECK(top_k >= 1 && num_tokens >= 0, "top k ", top_k, ", tokens ", num_tokens);
}

at::Tensor Smoothness::accumulate(const LogitChunk& chunk, double scale, at::Tensor& grad) const {
  const int64_t V = chunk.student.size(1);
  const int64_t num_tokens = num_tokens_ > 0 ? num_tokens_ : V;
  SATIN_CHECK(num_tokens <= V, num_tokens, " tokens in a vocabulary of ", V);
  if (num_tokens == V && top_k_ >= V) return exact_.accumulate(chunk, scale, grad);
  const double tau = temperature_;

  const at::Tensor K = top_k(chunk.teacher.narrow(1, 0, num_tokens), std::min(top_k_, num_tokens)).ids;
  // `rest`: logits with K taken out; one buffer for teacher, student and gradient. Logits are taken from their row's
  // largest: a logsumexp of thousands would have no digits left for the fractions that the masses are made of.
  at::Tensor rest = chunk.teacher - chunk.teacher.amax(1, /*keepdim=*/true);
  const at::Tensor z_K = rest.gather(1, K);
  const at::Tensor foreign = z_K == kExcluded;  // fewer than k candidates: these belong to the rest
  rest.scatter_(1, K, kExcluded);
  const Masses teacher = masses(z_K.logsumexp(1), rest.logsumexp(1));

  at::sub_out(rest, chunk.student, chunk.student.amax(1, /*keepdim=*/true));
  const at::Tensor s_at_K = rest.gather(1, K);
  const at::Tensor s_K = s_at_K.masked_fill(foreign, kExcluded);
  rest.scatter_(1, K, s_at_K.masked_fill(foreign.logical_not(), kExcluded));
  const at::Tensor log_sum_rest = rest.logsumexp(1);
  const Masses student = masses(s_K.logsumexp(1), log_sum_rest);

  const at::Tensor log_p = at::log_softmax(z_K / tau, 1), log_q = at::log_softmax(s_K / tau, 1);
  const at::Tensor p = log_p.exp(), q = log_q.exp();
  const at::Tensor loss = teacher.inside * divergence_terms(p, log_p, log_q).sum(1) * (tau * tau) +
                          divergence_terms(teacher.inside, teacher.log_inside, student.log_inside) +
                          divergence_terms(teacher.outside, teacher.log_outside, student.log_outside);

  const at::Tensor shift = excess(student, teacher).unsqueeze(1);
  const at::Tensor slope_K = (q - p) * (teacher.inside.unsqueeze(1) * tau) + shift * at::softmax(s_K, 1);
  // An empty rest has no softmax.
  at::softmax_out(rest, rest, 1).masked_fill_((log_sum_rest == kExcluded).unsqueeze(1), 0).mul_(-shift);
  rest.scatter_(1, K, at::where(foreign, rest.gather(1, K), slope_K));
  add_weighted(grad, rest, chunk.weights, scale);
  return weighted_sum(loss, chunk.weights);
}

}  // namespace satin::losses
