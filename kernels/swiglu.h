// The gate of a feed-forward layer and its gradients, element by element.
//
// Shapes   all [n].
// Dtypes   CPU: T (float or double). CUDA: all in one dtype.
// Contract (fp32 arithmetic, fp64 for double; each result rounded once), s = 1 / (1 + exp(-gate))
//   y = gate s up,   grad_gate = grad up s (1 + gate (1 - s)),   grad_up = grad gate s
// Source   Shazeer 2020 (GLU variants), SwiGLU.
// Errors   std::invalid_argument for sizes, std::runtime_error for CUDA.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

// CPU, one thread: elements [begin, end). T: float, double.

template <class T>
void swiglu_cpu(int64_t begin, int64_t end, const T* gate, const T* up, T* y);
template <class T>
void swiglu_backward_cpu(int64_t begin, int64_t end, const T* grad, const T* gate, const T* up, T* grad_gate,
                         T* grad_up);

// CUDA: asynchronous on `stream`. Pointers are device memory.

void swiglu_cuda(int64_t n, Dtype dtype, const void* gate, const void* up, void* y, CUstream_st* stream);
void swiglu_backward_cuda(int64_t n, Dtype dtype, const void* grad, const void* gate, const void* up, void* grad_gate,
                          void* grad_up, CUstream_st* stream);

}  // namespace satin::kernels
