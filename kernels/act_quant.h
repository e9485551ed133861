// Fake quantization of activations and of KV-cache rows: symmetric, one scale a row (dynamic) or one learned scale for
// the tensor (static).
//
// Shapes   x, out, grad, codes [R, C] row-major; a row is a token, or one head of a token in the KV cache.
// Dtypes   CPU: one scalar T (float or double) for all. CUDA: x, out, grad and grad_x in x_dtype; scale and its
//          gradient float (double with a double x). Codes are bytes: two's complement for integers, e4m3 for kFloat8.
// Contract (the same bits on every device; fp32 arithmetic, fp64 for double), u = x / scale
//   dynamic scale = max(max|row|, 1e-5) / top        static scale = max(scale, 1e-5)
//   level = the nearest of the format's numbers to clamp(u, -top, top), ties to even; value = scale * level, rounded to
//   x's dtype. Division is IEEE x / scale (not a multiplication by 1 / scale). A zero level is +0.
//   Dynamic: a row with NaN or infinity has a NaN scale, NaN values and codes 0, so that a NaN guard sees it.
//   Static: NaN stays NaN, infinity is clipped.
// Gradients of the static form (straight through rounding and floor), inside = |u| <= top
//   grad_x = inside ? grad : 0;  grad_scale = m * sum grad * (inside ? level - u : level)
//   m = 1 / sqrt(C * top) for integers and 1 / sqrt(C) for kFloat8: of the features alone, so that a step's gradient
//   does not depend on how its tokens are split. The dynamic form clips nothing, so straight through it is the
//   identity.
// Source   Esser et al. 2020 (LSQ) eq. 1-3; Liu et al. 2023 (LLM-QAT): activations and KV cache a token;
//          Micikevicius et al. 2022 (FP8 formats) table 1: e4m3, here saturating.
// Errors   std::invalid_argument for a bad format or size, std::runtime_error for CUDA.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

enum class ActivationFormat : int {
  kInt8,    ///< -127 .. 127
  kInt4,    ///< -7 .. 7
  kFloat8,  ///< e4m3fn: 4 bits of exponent (bias 7), 3 of mantissa, subnormals down to 2^-9, top 448
};

/// The format's largest number.
double top(ActivationFormat format);
/// Throws std::invalid_argument naming what does not fit.
void check(ActivationFormat format, Extent extent);

// CPU, one thread: rows [row_begin, row_end) of the full arrays, as in fake_quant.h. T: float, double.

template <class T>
void act_quant_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end, const T* x, T* out);

/// codes [R, C], scale [R]: value = scale * level(code).
template <class T>
void act_quant_codes_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end, const T* x,
                         uint8_t* codes, T* scale);

/// scale [1].
template <class T>
void act_quant_static_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end, const T* x,
                          const T* scale, T* out);

/// row_sums [R]: the rows' parts of the scale's gradient, for act_quant_scale_gradient when all rows are done.
template <class T>
void act_quant_static_backward_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end,
                                   const T* grad, const T* x, const T* scale, T* grad_x, double* row_sums);
/// m times the sum in order, whatever threads the rows ran on.
double act_quant_scale_gradient(ActivationFormat format, Extent extent, const double* row_sums);
/// The gradient multiplier m.
double act_quant_multiplier(ActivationFormat format, Extent extent);

// CUDA: asynchronous on `stream`; deterministic (no atomics). Pointers are device memory.

void act_quant_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* x, void* out,
                    CUstream_st* stream);

void act_quant_codes_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* x, uint8_t* codes,
                          void* scale, CUstream_st* stream);

void act_quant_static_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* x, const void* scale,
                           void* out, CUstream_st* stream);

/// Doubles of scratch memory that the backward takes: a sum for each block of values.
int64_t act_quant_num_sums(Extent extent);
void act_quant_static_backward_cuda(ActivationFormat format, Extent extent, Dtype x_dtype, const void* grad,
                                    const void* x, const void* scale, void* grad_x, void* grad_scale, double* sums,
                                    CUstream_st* stream);

}  // namespace satin::kernels
