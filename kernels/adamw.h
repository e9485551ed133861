// A step of AdamW on many tensors, which clips gradients while it reads them.
//
// Shapes    of each tensor [n]; corrections [2].
// Dtypes    float or double, all of a call in one; skip is float.
// Contract  with c = clip (1 where it is null), b1 and b2 the decays, t the steps with this one, and corrections
//           p = 1 / (1 - b1^t), q = 1 / sqrt(1 - b2^t), each operation rounded:
//             g = c gradient,   mean += (1 - b1) (g - mean),   square += (1 - b2) (g^2 - square)
//             w -= rate decay w,   w -= (rate p) mean / (q sqrt(square) + epsilon)
//           Where skip is not 0 nothing is written. The CPU's and the GPU's bits are the same.
// Source    Loshchilov and Hutter 2019 (Decoupled Weight Decay Regularization), algorithm 2, as torch.optim.AdamW.
// Errors    std::invalid_argument for sizes, std::runtime_error for CUDA.
#pragma once
#include <cstdint>
#include <span>

struct CUstream_st;

namespace satin::kernels {

struct AdamWBetas {
  double beta1, beta2, epsilon;
};

template <class T>
struct AdamWTask {
  int64_t n;
  T* w;
  const T* gradient;
  T *mean, *square;
  const T* corrections;
  const T* clip;  ///< [1]
  double rate, decay;
};

/// CPU, one thread: elements [begin, end). Skipping is the caller's.
template <class T>
void adamw_cpu(int64_t begin, int64_t end, const AdamWBetas& betas, const AdamWTask<T>& task);

/// Asynchronous on `stream`. Pointers are device memory. skip: [1] or null.
template <class T>
void adamw_cuda(std::span<const AdamWTask<T>> tasks, const AdamWBetas& betas, const float* skip, CUstream_st* stream);

}  // namespace satin::kernels
