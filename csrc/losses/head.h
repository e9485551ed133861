// LM head and losses in one pass over token chunks: hidden states in, losses and gradients out; never [tokens, V] at once.
#pragma once
#include <map>
#include <vector>

#include "losses/logit_loss.h"

namespace satin::losses {

struct Term {
  const LogitLoss* loss;
  double weight;  ///< 0: value reported is not computed
};

/// N tokens. Weights and hidden states in their compute dtypes; products leave in fp32 (fp64).
struct HeadInputs {
  at::Tensor hidden;          ///< [N, H] student, detached
  at::Tensor head;            ///< [V, H] student, detached
  at::Tensor teacher_hidden;  ///< [N, Ht] or undefined
  at::Tensor teacher_head;    ///< [V, Ht] or undefined
  at::Tensor targets;         ///< [N] int64
  at::Tensor weights;         ///< [N] fp32 (fp64): 1 / scored tokens of the whole step, 0 where masked
};

struct HeadResult {
  std::map<std::string, at::Tensor> values;  ///< 0-dim sums by loss name (on the device, not synchronised)
  at::Tensor grad_hidden;  ///< [N, H], hidden's dtype
  at::Tensor grad_head;    ///< [V, H], fp32 (fp64)
};

HeadResult head_losses(const HeadInputs& inputs, const std::vector<Term>& terms, int64_t chunk_tokens);

}  // namespace satin::losses
