// Rotary position embedding in the half-split layout of Hugging Face models; its own gradient by the opposite angle.
//
// Shapes   x, y: B sequences, H heads, T tokens, D features, each with strides of its own (features are contiguous);
//          cos, sin [T, D / 2] row-major.
// Dtypes   CPU: T (float or double) for all. CUDA: x and y in one dtype, cos and sin float (double with a double x).
// Contract (fp32 arithmetic, fp64 for double; the same bits on every device), a and b the halves of the features
//   y = (a cos - b sin, b cos + a sin);   inverse: with -sin
// Source   Su et al. 2021, eq. 34.
// Errors   std::invalid_argument for sizes, std::runtime_error for CUDA.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

struct RopeShape {
  int64_t sequences, heads, tokens, features;
};
/// In elements.
struct RopeStrides {
  int64_t sequence, head, token;
};

// CPU, one thread: rows [row_begin, row_end) of sequences x heads x tokens. T: float, double.
template <class T>
void rope_cpu(const RopeShape& shape, bool inverse, int64_t row_begin, int64_t row_end, const T* x,
              const RopeStrides& x_strides, const T* cos, const T* sin, T* y, const RopeStrides& y_strides);

// CUDA: asynchronous on `stream`. Pointers are device memory.
void rope_cuda(const RopeShape& shape, bool inverse, Dtype dtype, const void* x, const RopeStrides& x_strides,
               const void* cos, const void* sin, void* y, const RopeStrides& y_strides, CUstream_st* stream);

}  // namespace satin::kernels
