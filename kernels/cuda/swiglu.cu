// CUDA kernels of swiglu.h: one vector a thread.
#include "kernels/cuda/fake_quant_device.cuh"
#include "kernels/swiglu.h"

namespace satin::kernels {
namespace {

/// 1 / (1 + exp(-x)) and 1 minus that, of the exponential that cannot overflow, neither by cancellation.
template <class C>
struct Gate {
  C open, shut;
  __device__ __forceinline__ explicit Gate(C x) {
    const C small = exp(x < C(0) ? x : -x), large_share = C(1) / (C(1) + small), small_share = small * large_share;
    open = x < C(0) ? small_share : large_share;
    shut = x < C(0) ? large_share : small_share;
  }
};

template <class X, int V>
__global__ void __launch_bounds__(kThreads)
    swiglu_kernel(int64_t n, const X* __restrict__ gate, const X* __restrict__ up, X* __restrict__ y) {
  using C = Compute<X>;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (i >= n) return;
  const Pack<X, V> gates = load_pack<V>(gate + i), ups = load_pack<V>(up + i);
  Pack<X, V> result;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const C g = load_as<C>(gates.values[v]);
    result.values[v] = store_as<X>(g * Gate<C>(g).open * load_as<C>(ups.values[v]));
  }
  store_pack<V>(y + i, result);
}

template <class X, int V>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_kernel(int64_t n, const X* __restrict__ grad, const X* __restrict__ gate, const X* __restrict__ up,
                           X* __restrict__ grad_gate, X* __restrict__ grad_up) {
  using C = Compute<X>;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * V;
  if (i >= n) return;
  const Pack<X, V> grads = load_pack<V>(grad + i), gates = load_pack<V>(gate + i), ups = load_pack<V>(up + i);
  Pack<X, V> of_gate, of_up;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const C dy = load_as<C>(grads.values[v]), g = load_as<C>(gates.values[v]);
    const Gate<C> gate_of(g);
    of_gate.values[v] = store_as<X>(dy * load_as<C>(ups.values[v]) * gate_of.open * (C(1) + g * gate_of.shut));
    of_up.values[v] = store_as<X>(dy * g * gate_of.open);
  }
  store_pack<V>(grad_gate + i, of_gate);
  store_pack<V>(grad_up + i, of_up);
}

/// launch.template operator()<X, V>(num_blocks).
template <class Launch>
void for_elements(int64_t n, Dtype dtype, std::initializer_list<const void*> pointers, const Launch& launch) {
  if (n == 0) return;
  const auto run = [&]<class X, int V>() {
    const int64_t blocks = (n / V + kThreads - 1) / kThreads;
    if (blocks > 0x7fffffff) throw std::invalid_argument("swiglu: too many values for one launch");
    launch.template operator()<X, V>(static_cast<unsigned>(blocks));
  };
  for_weight(dtype, [&]<class X>(Type<X>) {
    if constexpr (!std::is_same_v<X, double>) {
      if (fits_vectors(n, pointers)) return run.template operator()<X, kVector>();
    }
    run.template operator()<X, 1>();
  });
}

}  // namespace

void swiglu_cuda(int64_t n, Dtype dtype, const void* gate, const void* up, void* y, CUstream_st* stream) {
  for_elements(n, dtype, {gate, up, y}, [&]<class X, int V>(unsigned blocks) {
    launch_kernel(swiglu_kernel<X, V>, blocks, stream, n, static_cast<const X*>(gate), static_cast<const X*>(up),
                  static_cast<X*>(y));
  });
  check_launch("swiglu_cuda");
}

void swiglu_backward_cuda(int64_t n, Dtype dtype, const void* grad, const void* gate, const void* up, void* grad_gate,
                          void* grad_up, CUstream_st* stream) {
  for_elements(n, dtype, {grad, gate, up, grad_gate, grad_up}, [&]<class X, int V>(unsigned blocks) {
    launch_kernel(swiglu_backward_kernel<X, V>, blocks, stream, n, static_cast<const X*>(grad),
                  static_cast<const X*>(gate), static_cast<const X*>(up), static_cast<X*>(grad_gate),
                  static_cast<X*>(grad_up));
  });
  check_launch("swiglu_backward_cuda");
}

}  // namespace satin::kernels
