// CPU kernels of rms_norm.h. Sums have a fixed order of kLanes partial sums, the same on every instruction set.
#include "kernels/rms_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/dispatch.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;

template <class T>
SATIN_INLINE T dot(int64_t n, const T* __restrict a, const T* __restrict b) {
  T lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  for (int lane = 0; i + lane < n; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  T sum = 0;
  for (T lane : lanes) sum += lane;
  return sum;
}

template <class T>
SATIN_INLINE void forward_loop(int64_t columns, double eps, int64_t begin, int64_t end, const T* x, const T* delta,
                               const T* weight, T* sum, T* y, T* rstd) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * columns;
    const T* from = x + first;
    if (delta) {
      for (int64_t i = first; i < first + columns; ++i) sum[i] = x[i] + delta[i];
      from = sum + first;
    }
    const T scale = T(1) / std::sqrt(dot(columns, from, from) / static_cast<T>(columns) + static_cast<T>(eps));
    for (int64_t i = 0; i < columns; ++i) y[first + i] = from[i] * scale * weight[i];
    rstd[row] = scale;
  }
}

/// The rows of one partial sum.
template <class T>
SATIN_INLINE void backward_loop(int64_t columns, int64_t begin, int64_t end, const T* grad_y, const T* grad_later,
                                const T* sum, const T* __restrict weight, const T* rstd, T* grad_x, T* grad_delta,
                                T* __restrict partial) {
  for (int64_t i = 0; i < columns; ++i) partial[i] = 0;
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict g = grad_y + row * columns;
    const T* __restrict s = sum + row * columns;
    T* __restrict out = grad_x + row * columns;
    const T scale = rstd[row];
    for (int64_t i = 0; i < columns; ++i) {
      partial[i] += g[i] * (s[i] * scale);
      out[i] = g[i] * weight[i];
    }
    const T mean = dot(columns, out, s) * scale / static_cast<T>(columns);
    for (int64_t i = 0; i < columns; ++i) out[i] = scale * (out[i] - s[i] * scale * mean);
    if (grad_later)
      for (int64_t i = 0; i < columns; ++i) out[i] += grad_later[row * columns + i];
    if (grad_delta)
      for (int64_t i = 0; i < columns; ++i) grad_delta[row * columns + i] = out[i];
  }
}

template <class T>
const T* in(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <class T>
T* out(void* pointer) {
  return static_cast<T*>(pointer);
}

}  // namespace

template <class T>
void rms_norm_cpu(Extent extent, double eps, int64_t row_begin, int64_t row_end, const RmsNormForward& call) {
  run_widest<forward_loop<T>>(extent.num_columns, eps, row_begin, row_end, in<T>(call.x), in<T>(call.delta),
                              in<T>(call.weight), out<T>(call.sum), out<T>(call.y), out<T>(call.rstd));
}

template <class T>
void rms_norm_backward_cpu(Extent extent, int64_t row_begin, int64_t row_end, const RmsNormBackward& call) {
  for (int64_t begin = row_begin; begin < row_end; begin += kNormRowsAPartial)
    run_widest<backward_loop<T>>(extent.num_columns, begin, std::min(begin + kNormRowsAPartial, row_end),
                                 in<T>(call.grad_y), in<T>(call.grad_later), in<T>(call.sum), in<T>(call.weight),
                                 in<T>(call.rstd), out<T>(call.grad_x), out<T>(call.grad_delta),
                                 out<T>(call.partials) + begin / kNormRowsAPartial * extent.num_columns);
}

int64_t rms_norm_num_partials_cpu(Extent extent) {
  return (extent.num_rows + kNormRowsAPartial - 1) / kNormRowsAPartial;
}

#define SATIN_INSTANTIATE(T)                                                              \
  template void rms_norm_cpu<T>(Extent, double, int64_t, int64_t, const RmsNormForward&); \
  template void rms_norm_backward_cpu<T>(Extent, int64_t, int64_t, const RmsNormBackward&);
SATIN_INSTANTIATE(float)
SATIN_INSTANTIATE(double)

}  // namespace satin::kernels
