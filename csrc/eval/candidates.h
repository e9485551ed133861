// The next tokens that a model proposes, and what the teacher thinks of them.
// Shapes: N contexts, V vocabulary, k candidates. Only the first `num_tokens` ids are candidates (the rest pads the
// vocabulary); probabilities are softmax over all columns, as in perplexity.
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::eval {

struct Candidates {
  at::Tensor ids;       ///< [N, k] int64, the model's best first, ties to the lower id
  at::Tensor log_prob;  ///< [N, k] natural logarithm of the teacher's probability of each
};
/// logits [N, V] of the model that ranks, teacher_log_prob [N, V'] (log_softmax; both V >= num_tokens); k is cut to
/// num_tokens.
Candidates candidates(const at::Tensor& logits, const at::Tensor& teacher_log_prob, int64_t num_tokens, int64_t k);

/// Which candidates the teacher finds at least as likely as theta (a number, or [N, 1]): bool [N, k].
at::Tensor effective(const Candidates& candidates, double theta);
at::Tensor effective(const Candidates& candidates, const at::Tensor& log_theta);

/// The smallest number of tokens whose probabilities sum to at least `mass`: [N] int64. prob [N, V].
at::Tensor nucleus_size(const at::Tensor& prob, double mass);

}  // namespace satin::eval
