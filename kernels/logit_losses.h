// Losses on next-token logits and their gradient, a row (token) at a time: cross-entropy, distillation over the whole
// vocabulary, and the smoothness loss (the KL inside the teacher's top k, with everything else as one bucket).
//
// Shapes   student s, teacher z, grad [N, V] row-major; targets, weights [N]; values [3, N].
// Dtypes   CPU: one scalar T (float or double) for all. CUDA: logits and values float, grad float or bfloat16; or all
//          double. targets int64.
// Contract, for a row of weight w (0: its grad and values are 0, whatever it holds), sigma = softmax(s)
//   cross-entropy  L = -ln sigma[target]                         dL/ds = sigma - onehot(target)
//   distillation   p = softmax(z / T), q = softmax(s / T)
//     kMixture       L = T^2 (share KL(p || q) + (1 - share) KL(q || p))
//                    dL/ds = T (share (q - p) + (1 - share) q (ln(q / p) - KL(q || p)))
//     kJensenShannon m = share p + (1 - share) q,  L = T^2 (share KL(p || m) + (1 - share) KL(q || m))
//                    dL/ds = T (1 - share) q (ln(q / m) - KL(q || m))
//   smoothness     K = the top_k largest of z[0 .. num_tokens), ties to the lower id, -inf never in it;
//                  p, q = softmax over K of z / tau, s / tau;  P, Q = mass of K under softmax(z), sigma
//                    L = P tau^2 KL(p || q) + P ln(P / Q) + (1 - P) ln((1 - P) / (1 - Q))
//                    dL/ds = P tau (q - p) + (Q - P) sigma / Q  in K,   (P - Q) sigma / (1 - Q)  outside
//   grad = w * (sum over losses of their weight * dL/ds);  values = w * L (not weighted by the losses' weights)
//   0 ln 0 = 0; no clamps, so that a teacher's losses against itself are exactly 0. Logits are taken from their row's
//   largest, and the masses' logarithms each from a sum of their own. A NaN in a row makes its results NaN.
// Source   Hinton et al. 2015 (T^2); Agarwal et al. 2024 (GKD) eq. 1: Jensen-Shannon; Du et al. 2024 (BitDistiller) eq.
// 6:
//          the mixture (CAKLD); smoothness: own formulation for the neighbourhood of arXiv 2605.08894.
// Errors   std::invalid_argument for options that make no sense, std::runtime_error for CUDA.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

enum class Divergence : int { kMixture, kJensenShannon };

/// Weights of 0: not computed. V: what N rows have in common.
struct LogitLosses {
  double cross_entropy = 0;  ///< weight

  double distillation = 0;  ///< weight
  double temperature = 1;   ///< T
  Divergence divergence = Divergence::kMixture;
  double share = 1;  ///< of the teacher's side: 1 is the forward KL, 0 the reverse

  double smoothness = 0;              ///< weight
  double smoothness_temperature = 1;  ///< tau
  int64_t top_k = 1;                  ///< at most kMaxTopK on CUDA
  int64_t num_tokens = 0;             ///< ids from it on are padding of the vocabulary; 0: there is none

  bool needs_teacher() const { return distillation != 0 || smoothness != 0; }
};
constexpr int64_t kNumLogitLosses = 3;  ///< rows of values: cross-entropy, distillation, smoothness
constexpr int64_t kMaxTopK = 512;       ///< of the CUDA kernels

/// teacher may be null when no loss needs it, targets when there is no cross-entropy.
void check(const LogitLosses& losses, int64_t num_columns);

/// CPU, one thread: rows [row_begin, row_end) of the full arrays.
template <class T>
void logit_losses_cpu(const LogitLosses& losses, Extent extent, int64_t row_begin, int64_t row_end, const T* student,
                      const T* teacher, const int64_t* targets, const T* weights, T* grad, T* values);

/// CUDA: asynchronous on `stream`; deterministic.
void logit_losses_cuda(const LogitLosses& losses, Extent extent, Dtype logits_dtype, const void* student,
                       const void* teacher, const int64_t* targets, const void* weights, Dtype grad_dtype, void* grad,
                       void* values, CUstream_st* stream);

/// A teacher of whom only the top k of each row is known: K, its logits, and what is needed of the others.
struct StoredTopK {
  int64_t k;             ///< at most kMaxTopK on CUDA
  const int32_t* ids;    ///< [N, k], no id twice; where `logits` is -inf there is none
  const void* logits;    ///< [N, k] from any origin a row; scalars like the student's logits, as all below
  const void* log_rest;  ///< [N] ln(1 - P)
  const void* log_mass;  ///< [N] ln P
};
/// The losses above against a stored teacher. The smoothness loss is as above with this K; distillation is the forward
/// KL at temperature 1 with everything outside K as one bucket (the smoothness loss at tau = 1). Throws
/// std::invalid_argument for another distillation.
template <class T>
void stored_losses_cpu(const LogitLosses& losses, Extent extent, int64_t row_begin, int64_t row_end, const T* student,
                       const StoredTopK& teacher, const int64_t* targets, const T* weights, T* grad, T* values);
void stored_losses_cuda(const LogitLosses& losses, Extent extent, Dtype logits_dtype, const void* student,
                        const StoredTopK& teacher, const int64_t* targets, const void* weights, Dtype grad_dtype,
                        void* grad, void* values, CUstream_st* stream);
/// The largest vocabulary of stored_losses_cuda.
constexpr int64_t kMaxStoredVocabulary = int64_t{1} << 18;
/// Throws std::invalid_argument naming what a stored teacher cannot give.
void check_stored(const LogitLosses& losses, int64_t num_columns);

/// The k largest of every row [N, V], falling, ties to the lower id (NaN counts as larger than everything): values and
/// ids [N, k]. 1 <= k <= V; CUDA: k <= kMaxTopK and float or double logits.
template <class T>
void top_k_cpu(Extent extent, int64_t k, int64_t row_begin, int64_t row_end, const T* logits, T* values, int64_t* ids);
void top_k_cuda(Extent extent, int64_t k, Dtype dtype, const void* logits, void* values, int64_t* ids,
                CUstream_st* stream);

}  // namespace satin::kernels
