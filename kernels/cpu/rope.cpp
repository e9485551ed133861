// CPU kernel of rope.h.
#include "kernels/rope.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {
namespace {

template <class T>
SATIN_INLINE void rotate_row(int64_t half, T sign, const T* __restrict x, const T* __restrict cos,
                             const T* __restrict sin, T* __restrict y) {
  for (int64_t i = 0; i < half; ++i) {
    const T a = x[i], b = x[half + i], c = cos[i], s = sign * sin[i];
    y[i] = a * c - b * s;
    y[half + i] = b * c + a * s;
  }
}

int64_t offset(const RopeStrides& strides, int64_t sequence, int64_t head, int64_t token) {
  return sequence * strides.sequence + head * strides.head + token * strides.token;
}

}  // namespace

template <class T>
void rope_cpu(const RopeShape& shape, bool inverse, int64_t row_begin, int64_t row_end, const T* x,
              const RopeStrides& x_strides, const T* cos, const T* sin, T* y, const RopeStrides& y_strides) {
  const int64_t half = shape.features / 2;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t token = row % shape.tokens, head = row / shape.tokens % shape.heads;
    const int64_t sequence = row / (shape.tokens * shape.heads);
    run_widest<rotate_row<T>>(half, inverse ? T(-1) : T(1), x + offset(x_strides, sequence, head, token),
                              cos + token * half, sin + token * half, y + offset(y_strides, sequence, head, token));
  }
}

template void rope_cpu<float>(const RopeShape&, bool, int64_t, int64_t, const float*, const RopeStrides&, const float*,
                              const float*, float*, const RopeStrides&);
template void rope_cpu<double>(const RopeShape&, bool, int64_t, int64_t, const double*, const RopeStrides&,
                               const double*, const double*, double*, const RopeStrides&);

}  // namespace satin::kernels
