// What the losses' kernels share: sums of exponentials over a block's threads, rows without weight, the choice of an
// instantiation.
#pragma once
#include "kernels/cuda/fake_quant_device.cuh"
#include "kernels/logit_losses_math.h"

namespace satin::kernels {

constexpr int kWarps = kThreads / kWarp;

__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float exp_of(float x) {
#if defined(__CUDA_ARCH__)
  return __expf(x);  // within 2^-21 for what contributes; the gradient is rounded to bf16 anyway
#else
  return std::exp(x);
#endif
}

/// sum of exp(factor x), kept as exp(factor top) * sum with `top` the largest x: finite from the start, so that -inf
/// adds nothing by itself.
template <class S>
struct LogSum {
  S top = std::numeric_limits<S>::lowest(), sum = 0;

  template <int W>
  __device__ __forceinline__ void add(const S (&x)[W], S factor) {
    S most = x[0];
#pragma unroll
    for (int j = 1; j < W; ++j) most = most < x[j] ? x[j] : most;
    if (most > top) {
      sum *= exp_of((top - most) * factor);
      top = most;
    }
#pragma unroll
    for (int j = 0; j < W; ++j) sum += exp_of((x[j] - top) * factor);
  }
  __device__ __forceinline__ void add(S x, S factor) {
    const S one[1] = {x};
    add(one, factor);
  }
  /// The same whichever of the two is *this.
  __device__ __forceinline__ void merge(const LogSum& other, S factor) {
    const S most = top < other.top ? other.top : top;
    const S own = top == most ? sum : sum * exp_of((top - most) * factor);
    const S others = other.top == most ? other.sum : other.sum * exp_of((other.top - most) * factor);
    top = most;
    sum = own + others;
  }
};

/// A finished sum as factor * top + log: a sum of thousands would have no digits left for the fractions that
/// probabilities are made of.
template <class S>
struct LogTotal {
  S top, factor, log;
  __device__ __forceinline__ LogTotal(const LogSum<S>& sum, S factor)
      : top(sum.top), factor(factor), log(sum.sum == S(0) ? kNegativeInfinity<S> : std::log(sum.sum)) {}
  __device__ __forceinline__ bool empty() const { return log == kNegativeInfinity<S>; }
  /// With x taken from `origin`.
  __device__ __forceinline__ S from(S origin) const { return empty() ? log : (top - origin) * factor + log; }
  /// ln of x's share of the sum.
  __device__ __forceinline__ S log_share(S x) const { return (x - top) * factor - log; }
};

/// Over the block, the same in every thread. Called by all of them.
template <class S>
__device__ LogSum<S> merged(LogSum<S> value, S factor) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    LogSum<S> other;
    other.top = __shfl_xor_sync(0xffffffffu, value.top, offset);
    other.sum = __shfl_xor_sync(0xffffffffu, value.sum, offset);
    value.merge(other, factor);
  }
  __shared__ S tops[kWarps], sums[kWarps];
  __syncthreads();  // an earlier call's have been read
  if (threadIdx.x % kWarp == 0) {
    tops[threadIdx.x / kWarp] = value.top;
    sums[threadIdx.x / kWarp] = value.sum;
  }
  __syncthreads();
  LogSum<S> all;
  for (int i = 0; i < kWarps; ++i) {
    LogSum<S> part;
    part.top = tops[i];
    part.sum = sums[i];
    all.merge(part, factor);
  }
  return all;
}
/// The block's sum, in every thread. Called by all of them.
template <class S>
__device__ S total(S value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  __shared__ S sums[kWarps];
  __syncthreads();
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  S sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += sums[i];
  return sum;
}

/// Zeros for the outputs of a row without weight: its gradient of `num_columns` and its values, num_rows apart.
template <int W, class S, class O>
__device__ void write_zeros(O* grad, int num_columns, S* values, int64_t num_rows) {
  const Pack<O, W> zeros = {};
  for (int i = static_cast<int>(threadIdx.x) * W; i < num_columns; i += kThreads * W) store_pack<W>(grad + i, zeros);
  if (threadIdx.x < kNumLogitLosses) values[threadIdx.x * num_rows] = 0;
}

/// body.template operator()<S, O, W>() for scalars S of the logits and O of the gradient, W logits a load: the widest
/// that fits `num_columns` and the pointers. `name`: the kernel's, for errors.
template <class Body>
void for_logits(const char* name, Dtype logits, Dtype grad, int64_t num_columns,
                std::initializer_list<const void*> pointers, const Body& body) {
  const bool fits = num_columns % 4 == 0 && aligned(pointers);
  if (logits == Dtype::kDouble && grad == Dtype::kDouble)
    body.template operator()<double, double, 1>();
  else if (logits == Dtype::kFloat && grad == Dtype::kFloat)
    fits ? body.template operator()<float, float, 4>() : body.template operator()<float, float, 1>();
  else if (logits == Dtype::kFloat && grad == Dtype::kBFloat16)
    fits ? body.template operator()<float, __nv_bfloat16, 4>() : body.template operator()<float, __nv_bfloat16, 1>();
  else
    throw std::invalid_argument(std::string(name) +
                                ": logits are float with float or bfloat16 gradients, or all double");
}

}  // namespace satin::kernels
