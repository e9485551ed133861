// Root-mean-square normalisation, with the residual addition before it, and its gradients.
//
// Shapes   x, delta, sum, y and their gradients [R, C] row-major; weight and its gradient [C]; rstd [R].
// Dtypes   CPU: one scalar T (float or double) for all. CUDA: x, sum and their gradients in x_dtype; y, delta and their
//          gradients in y_dtype; weight, rstd and weight gradients float (double with a double x). Pairs (x, y): float
//          with float or bfloat16, bfloat16 with bfloat16, double with double; delta with an fp32 (fp64) x only.
// Contract (fp32 arithmetic, fp64 for double)
//   sum = x + delta (without delta: x)         rstd = 1 / sqrt(mean(sum^2) + eps)         y = sum rstd weight
//   With n = sum rstd and g = grad_y weight:
//   grad_sum = grad_later + rstd (g - n mean(g n)),   grad_x = grad_sum,   grad_delta = grad_sum rounded to y_dtype
//   grad_weight = sum over rows of grad_y n
//   Sums run in a fixed order on each device: twice the same bits, not the same on both.
// Source   Zhang and Sennrich 2019, eq. 4.
// Errors   std::invalid_argument for sizes or dtypes, std::runtime_error for CUDA.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

constexpr int64_t kMaxNormColumns = 16384;  ///< of CUDA's kernels: a row is held in registers

/// Pointers of one call; those marked optional may be null.
struct RmsNormForward {
  const void* x;
  const void* delta;  ///< optional
  const void* weight;
  void* sum;  ///< with delta
  void* y;
  void* rstd;
};
struct RmsNormBackward {
  const void* grad_y;
  const void* grad_later;  ///< optional: gradient of the sum from whatever else reads it
  const void* sum;         ///< x where there was no delta
  const void* weight;
  const void* rstd;
  void* grad_x;
  void* grad_delta;   ///< optional
  void* grad_weight;  ///< [C]
  void* partials;     ///< scratch, [rms_norm_num_partials, C] in the arithmetic's dtype
};

// CPU, one thread: rows [row_begin, row_end) of the full arrays, as in fake_quant.h. T: float, double.

template <class T>
void rms_norm_cpu(Extent extent, double eps, int64_t row_begin, int64_t row_end, const RmsNormForward& call);

/// Rows that share a partial sum of the weight's gradient: a range of rows begins and ends at multiples (or at R).
constexpr int64_t kNormRowsAPartial = 64;
/// Everything but grad_weight, for which it writes its rows' partials.
template <class T>
void rms_norm_backward_cpu(Extent extent, int64_t row_begin, int64_t row_end, const RmsNormBackward& call);
/// Rows of scratch memory: of the CPU's kernel, or of CUDA's.
int64_t rms_norm_num_partials_cpu(Extent extent);

// CUDA: asynchronous on `stream`; deterministic (no atomics). Pointers are device memory.

int64_t rms_norm_num_partials_cuda(Extent extent);
void rms_norm_cuda(Extent extent, double eps, Dtype x_dtype, Dtype y_dtype, const RmsNormForward& call,
                   CUstream_st* stream);
void rms_norm_backward_cuda(Extent extent, Dtype x_dtype, Dtype y_dtype, const RmsNormBackward& call,
                            CUstream_st* stream);

}  // namespace satin::kernels
