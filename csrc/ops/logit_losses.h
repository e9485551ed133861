// Losses on next-token logits with their gradient in one pass, and top k, typed. Each is also in PyTorch's dispatcher
// as satin::<name>. Formulas: kernels/logit_losses.h.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/logit_losses.h"

namespace satin::ops {

using kernels::Divergence;
using kernels::kMaxTopK;
using kernels::LogitLosses;

/// student, teacher [N, V] float (double); targets [N] int64; weights [N] in the logits' dtype; grad [N, V] float or
/// bfloat16 (double), overwritten with the gradient. teacher may be undefined when no loss needs it. Returns
/// [kNumLogitLosses, N]: each loss of each row times the row's weight. Does not wait for the device, where top_k is at
/// most kMaxTopK. Throws InternalError for shapes, dtypes or devices that do not agree.
at::Tensor logit_losses(const LogitLosses& losses, const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& targets, const at::Tensor& weights, at::Tensor& grad);

/// A teacher of whom only the top k of each row is known; see kernels/logit_losses.h.
struct StoredTopK {
  at::Tensor ids;       ///< [N, k] int32, no id twice in a row
  at::Tensor logits;    ///< [N, k] in the student's dtype, from any origin a row; -inf: there is none
  at::Tensor log_rest;  ///< [N] ln(1 - P), P the mass of the row's ids
  at::Tensor log_mass;  ///< [N] ln P

  bool defined() const { return ids.defined(); }
  StoredTopK narrow(int64_t start, int64_t length) const;
};
/// logit_losses against a stored teacher: distillation is the forward KL at temperature 1 with everything outside the
/// stored ids as one bucket.
at::Tensor stored_losses(const LogitLosses& losses, const at::Tensor& student, const StoredTopK& teacher,
                         const at::Tensor& targets, const at::Tensor& weights, at::Tensor& grad);

struct TopK {
  at::Tensor values;  ///< [N, k] falling
  at::Tensor ids;     ///< [N, k] int64; equal values in rising order of id
};
/// The k largest of every row of logits [N, V] (float or double), 1 <= k <= V; on CUDA at most kMaxTopK. (at::topk
/// picks among equals as it likes, and differently on the CPU and on CUDA.) Does not wait for the device.
TopK top_k(const at::Tensor& logits, int64_t k);

}  // namespace satin::ops
