// CPU kernels of swiglu.h.
#include "kernels/swiglu.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/exponential.h"

namespace satin::kernels {
namespace {

/// 1 / (1 + exp(-x)), of the exponential that cannot overflow.
template <class T>
SATIN_INLINE T sigmoid(T x) {
  const T e = exp_of(x < T(0) ? x : -x), one = T(1) / (T(1) + e);
  return x < T(0) ? e * one : one;
}

template <class T>
SATIN_INLINE void forward_loop(int64_t n, const T* gate, const T* up, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

template <class T>
SATIN_INLINE void backward_loop(int64_t n, const T* __restrict grad, const T* __restrict gate, const T* __restrict up,
                                T* __restrict grad_gate, T* __restrict grad_up) {
  for (int64_t i = 0; i < n; ++i) {
    const T s = sigmoid(gate[i]);
    grad_gate[i] = grad[i] * up[i] * s * (T(1) + gate[i] * (T(1) - s));
    grad_up[i] = grad[i] * gate[i] * s;
  }
}

}  // namespace

template <class T>
void swiglu_cpu(int64_t begin, int64_t end, const T* gate, const T* up, T* y) {
  run_widest<forward_loop<T>>(end - begin, gate + begin, up + begin, y + begin);
}

template <class T>
void swiglu_backward_cpu(int64_t begin, int64_t end, const T* grad, const T* gate, const T* up, T* grad_gate,
                         T* grad_up) {
  run_widest<backward_loop<T>>(end - begin, grad + begin, gate + begin, up + begin, grad_gate + begin, grad_up + begin);
}

#define SATIN_INSTANTIATE(T)                                             \
  template void swiglu_cpu<T>(int64_t, int64_t, const T*, const T*, T*); \
  template void swiglu_backward_cpu<T>(int64_t, int64_t, const T*, const T*, const T*, T*, T*);
SATIN_INSTANTIATE(float)
SATIN_INSTANTIATE(double)

}  // namespace satin::kernels
