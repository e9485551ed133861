#include "eval/candidates.h"

#include <ATen/ATen.h>

#include <cmath>

#include "ops/logit_losses.h"

namespace satin::eval {

Candidates candidates(const at::Tensor& logits, const at::Tensor& teacher_log_prob, int64_t num_tokens, int64_t k) {
  const at::Tensor ids = ops::top_k(logits.narrow(1, 0, num_tokens), std::min(k, num_tokens)).ids;
  return {ids, teacher_log_prob.gather(1, ids).to(at::kDouble)};
}

at::Tensor effective(const Candidates& candidates, double theta) { return candidates.log_prob >= std::log(theta); }
at::Tensor effective(const Candidates& candidates, const at::Tensor& log_theta) {
  return candidates.log_prob >= log_theta;
}

at::Tensor nucleus_size(const at::Tensor& prob, double mass) {
  const int64_t V = prob.size(1);
  at::Tensor size = at::full({prob.size(0)}, V, prob.options().dtype(at::kLong));
  // Nuclei are small as a rule: sorting whole rows is kept for the few that need it.
  at::Tensor open = at::arange(prob.size(0), size.options());
  for (int64_t k = std::min<int64_t>(64, V); open.size(0) > 0; k = std::min(8 * k, V)) {
    const at::Tensor largest = std::get<0>(at::topk(prob.index_select(0, open), k, 1));
    const at::Tensor below = (largest.to(at::kDouble).cumsum(1) < mass).sum(1);
    const at::Tensor reached = below < k;
    size.index_put_({open.masked_select(reached)}, below.masked_select(reached) + 1);
    if (k == V) break;
    open = open.masked_select(reached.logical_not());
  }
  return size;
}

}  // namespace satin::eval
