// LM head and losses in one pass over token chunks: hidden states in, losses and gradients out; never [tokens, V] at
// once.
#pragma once
#include <map>
#include <vector>

#include "losses/logit_loss.h"

namespace satin::losses {

struct Term {
  const LogitLoss* loss;
  double weight;  ///< 0: not computed and not in the result
};

/// N tokens. Weights and hidden states in their compute dtypes; products leave in fp32 (fp64).
struct HeadInputs {
  at::Tensor hidden;          ///< [N, H] student, detached
  at::Tensor head;            ///< [V, H] student, detached
  at::Tensor teacher_hidden;  ///< [N, Ht] or undefined
  at::Tensor teacher_head;    ///< [V, Ht] or undefined
  at::Tensor targets;         ///< [N] int64
  at::Tensor weights;  ///< [N] fp32 (fp64): 1 / scored tokens of the whole step, 0 where masked (NaN there stays there)
  ops::StoredTopK stored_teacher = {};  ///< of the N tokens, instead of teacher_hidden and teacher_head; or undefined
  at::Tensor grad_head = {};            ///< [V, H] fp32 (fp64) that the head's gradient is added to; or undefined
};

struct HeadResult {
  std::map<std::string, at::Tensor> values;  ///< 0-dim sums by loss name (on the device, not synchronised)
  at::Tensor grad_hidden;                    ///< [N, H], hidden's dtype
  at::Tensor grad_head;                      ///< [V, H], fp32 (fp64)
};

/// Rows of the vocabulary that are in memory at a time.
struct HeadChunks {
  int64_t logits;     ///< rows of fp32 logits, twice with a teacher
  int64_t gradients;  ///< rows of gradients in the compute dtype: every chunk reads and writes grad_head once

  /// chunk_tokens: gradients' rows; 0: as many as a budget allows (CUDA: 896 MiB, and 256 MiB a side of logits).
  HeadChunks(int64_t chunk_tokens, int64_t num_tokens, int64_t vocab_size, at::ScalarType compute_dtype,
             const at::Device& device);
  /// What the buffers take.
  int64_t bytes(int64_t vocab_size, at::ScalarType compute_dtype, bool with_teacher) const;
};

/// Logits of one chunk, [N, H] and [V, H] -> [N, V], in fp32 (fp64): bf16 products leave the multiplication in fp32.
at::Tensor head_logits(const at::Tensor& hidden, const at::Tensor& head);

/// Sums of the terms' losses (unscaled) and the gradient of sum_terms weight * loss. chunk_tokens: see HeadChunks; it
/// changes results by rounding only. Gradients of logits are rounded to the compute dtype for the two products. Never
/// waits for the device.
HeadResult head_losses(const HeadInputs& inputs, const std::vector<Term>& terms, int64_t chunk_tokens);

}  // namespace satin::losses
