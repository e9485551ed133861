// CPU kernels of act_quant.h. Sums have a fixed order of kLanes partial sums, the same on every instruction set.
#include "kernels/act_quant.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/act_quant_math.h"
#include "kernels/cpu/dispatch.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;

template <class T>
SATIN_INLINE T row_scale(T top, int64_t n, const T* __restrict x) {
  Magnitude<T> lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = larger(lanes[lane], magnitude(x[i + lane]));
  for (int lane = 0; i + lane < n; ++lane) lanes[lane] = larger(lanes[lane], magnitude(x[i + lane]));
  for (int lane = 1; lane < kLanes; ++lane) lanes[0] = larger(lanes[0], lanes[lane]);
  return dynamic_scale(lanes[0], top);
}

template <bool kFloat8, class T>
SATIN_INLINE void quantize(ActivationLevels<kFloat8, T> levels, T scale, int64_t n, const T* __restrict x,
                           T* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = scale * levels.level(x[i] / scale);
}

template <bool kFloat8, class T>
SATIN_INLINE void dynamic_loop(T top, int64_t columns, int64_t begin, int64_t end, const T* x, T* out) {
  for (int64_t first = begin * columns; first < end * columns; first += columns)
    quantize<kFloat8, T>({top}, row_scale(top, columns, x + first), columns, x + first, out + first);
}

template <bool kFloat8, class T>
SATIN_INLINE void codes_loop(T top, int64_t columns, int64_t begin, int64_t end, const T* x, uint8_t* codes, T* scale) {
  const ActivationLevels<kFloat8, T> levels{top};
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict from = x + row * columns;
    uint8_t* __restrict to = codes + row * columns;
    const T s = row_scale(top, columns, from);
    for (int64_t i = 0; i < columns; ++i) to[i] = levels.code(levels.level(from[i] / s));
    scale[row] = s;
  }
}

template <bool kFloat8, class T>
SATIN_INLINE void static_loop(T top, T scale, int64_t begin, int64_t end, const T* x, T* out) {
  quantize<kFloat8, T>({top}, static_scale(scale), end - begin, x + begin, out + begin);
}

template <bool kFloat8, class T>
SATIN_INLINE void backward_loop(T top, T scale, int64_t columns, int64_t begin, int64_t end, const T* grad, const T* x,
                                T* grad_x, double* row_sums) {
  const ActivationLevels<kFloat8, T> levels{top};
  const T s = static_scale(scale);
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict gs = grad + row * columns;
    const T* __restrict xs = x + row * columns;
    T* __restrict out = grad_x + row * columns;
    T lanes[kLanes] = {};
    const auto add = [&](int64_t i, int lane) __attribute__((always_inline)) {
      const T u = xs[i] / s;
      const bool inside = levels.inside(u);
      out[i] = inside ? gs[i] : T(0);
      lanes[lane] += gs[i] * (levels.level(u) - (inside ? u : T(0)));
    };
    int64_t i = 0;
    for (; i + kLanes <= columns; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
    for (int lane = 0; i + lane < columns; ++lane) add(i + lane, lane);
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(lanes[lane]);
    row_sums[row] = sum;
  }
}

}  // namespace

double top(ActivationFormat format) {
  return format == ActivationFormat::kInt8 ? 127 : format == ActivationFormat::kInt4 ? 7 : 448;
}

void check(ActivationFormat format, Extent extent) {
  const auto fail = [](const std::string& what, int64_t found) {
    throw std::invalid_argument("act_quant: expected " + what + ", found " + std::to_string(found));
  };
  const int number = static_cast<int>(format);
  if (number < 0 || number > 2) fail("a format", number);
  if (extent.num_rows < 0) fail("at least 0 rows", extent.num_rows);
  if (extent.num_columns < 0 || extent.num_columns > int64_t{1} << 30) fail("0 to 2^30 columns", extent.num_columns);
}

double act_quant_multiplier(ActivationFormat format, Extent extent) {
  const auto features = static_cast<double>(extent.num_columns);
  return 1 / std::sqrt(format == ActivationFormat::kFloat8 ? features : features * top(format));
}

double act_quant_scale_gradient(ActivationFormat format, Extent extent, const double* row_sums) {
  double sum = 0;
  for (int64_t row = 0; row < extent.num_rows; ++row) sum += row_sums[row];
  return extent.num_rows * extent.num_columns == 0 ? 0 : act_quant_multiplier(format, extent) * sum;
}

template <class T>
void act_quant_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end, const T* x, T* out) {
  if (extent.num_columns == 0) return;
  for_format(format, [&]<bool kFloat8>() {
    run_widest<dynamic_loop<kFloat8, T>>(static_cast<T>(top(format)), extent.num_columns, row_begin, row_end, x, out);
  });
}

template <class T>
void act_quant_codes_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end, const T* x,
                         uint8_t* codes, T* scale) {
  for_format(format, [&]<bool kFloat8>() {
    run_widest<codes_loop<kFloat8, T>>(static_cast<T>(top(format)), extent.num_columns, row_begin, row_end, x, codes,
                                       scale);
  });
}

template <class T>
void act_quant_static_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end, const T* x,
                          const T* scale, T* out) {
  const int64_t columns = extent.num_columns;
  for_format(format, [&]<bool kFloat8>() {
    run_widest<static_loop<kFloat8, T>>(static_cast<T>(top(format)), *scale, row_begin * columns, row_end * columns, x,
                                        out);
  });
}

template <class T>
void act_quant_static_backward_cpu(ActivationFormat format, Extent extent, int64_t row_begin, int64_t row_end,
                                   const T* grad, const T* x, const T* scale, T* grad_x, double* row_sums) {
  for_format(format, [&]<bool kFloat8>() {
    run_widest<backward_loop<kFloat8, T>>(static_cast<T>(top(format)), *scale, extent.num_columns, row_begin, row_end,
                                          grad, x, grad_x, row_sums);
  });
}

#define SATIN_INSTANTIATE(T)                                                                                     \
  template void act_quant_cpu<T>(ActivationFormat, Extent, int64_t, int64_t, const T*, T*);                      \
  template void act_quant_codes_cpu<T>(ActivationFormat, Extent, int64_t, int64_t, const T*, uint8_t*, T*);      \
  template void act_quant_static_cpu<T>(ActivationFormat, Extent, int64_t, int64_t, const T*, const T*, T*);     \
  template void act_quant_static_backward_cpu<T>(ActivationFormat, Extent, int64_t, int64_t, const T*, const T*, \
                                                 const T*, T*, double*);
SATIN_INSTANTIATE(float)
SATIN_INSTANTIATE(double)
#undef SATIN_INSTANTIATE

}  // namespace satin::kernels
