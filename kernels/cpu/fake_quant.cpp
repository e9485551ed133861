// CPU kernels of fake_quant.h. Sums have a fixed order of kLanes partial sums, the same on every instruction set.
#include "kernels/fake_quant.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;

template <Grid kGrid, Rounding kDequant, class T>
SATIN_INLINE void forward_group(const Group<kGrid, T>& group, int64_t n, const T* __restrict w, T* __restrict out) {
  const T a = group.a, stored = group.stored;
  for (int64_t i = 0; i < n; ++i) out[i] = round_to(kDequant, stored * group.level(w[i] / a));
}

template <Grid kGrid, Rounding kDequant, class T>
SATIN_INLINE void forward_loop(FakeQuantGrid grid, int64_t begin, int64_t end, const T* w, const T* scale,
                               const T* zero_point, T* out) {
  for (int64_t g = begin; g < end; ++g) {
    const Group<kGrid, T> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : T(0));
    const int64_t first = g * grid.group_size;
    forward_group<kGrid, kDequant, T>(group, grid.group_size, w + first, out + first);
  }
}

template <Grid kGrid, class T>
SATIN_INLINE void codes_loop(FakeQuantGrid grid, int64_t begin, int64_t end, const T* w, const T* scale,
                             const T* zero_point, uint8_t* codes, T* stored, int32_t* zero) {
  for (int64_t g = begin; g < end; ++g) {
    const Group<kGrid, T> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : T(0));
    const T* __restrict from = w + g * grid.group_size;
    uint8_t* __restrict to = codes + g * grid.group_size;
    for (int64_t i = 0; i < grid.group_size; ++i)
      to[i] = static_cast<uint8_t>(group.code(group.level(from[i] / group.a)));
    stored[g] = group.stored;
    zero[g] = group.zero_code();
  }
}

/// x or 0, by bits: written with ?: the compiler makes branches of it and does not vectorise.
SATIN_INLINE float keep_if(bool condition, float x) { return float_of(bits_of(x) & (0u - uint32_t{condition})); }
SATIN_INLINE double keep_if(bool condition, double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bits &= uint64_t{0} - uint64_t{condition};
  memcpy(&x, &bits, sizeof(x));
  return x;
}

template <class T>
SATIN_INLINE T sum_lanes(T* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  return lanes[0];
}

template <Grid kGrid, class T>
SATIN_INLINE void backward_loop(FakeQuantGrid grid, int64_t begin, int64_t end, T multiplier, const T* grad, const T* w,
                                const T* scale, const T* zero_point, T* grad_w, T* grad_scale, T* grad_zero_point) {
  for (int64_t g = begin; g < end; ++g) {
    const Group<kGrid, T> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : T(0));
    const int64_t first = g * grid.group_size, n = grid.group_size;
    const T* __restrict gs = grad + first;
    const T* __restrict ws = w + first;
    T* __restrict out = grad_w + first;
    T scale_lanes[kLanes] = {}, outside_lanes[kLanes] = {};
    const auto add = [&](int64_t first_weight, int width) __attribute__((always_inline)) {
      for (int lane = 0; lane < width; ++lane) {
        const int64_t i = first_weight + lane;
        const T u = ws[i] / group.a, q = group.level(u) * unit<kGrid, T>();
        const bool inside = group.inside(u);
        out[i] = keep_if(inside, gs[i] * group.gradient_factor(ws[i]));
        scale_lanes[lane] += gs[i] * (kHasSigns<kGrid> ? q : q - keep_if(inside, u));
        outside_lanes[lane] += keep_if(!inside, gs[i]);
      }
    };
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) add(i, kLanes);
    add(i, static_cast<int>(n - i));
    grad_scale[g] = multiplier * sum_lanes(scale_lanes);
    if constexpr (kGrid == Grid::kAsymmetric) grad_zero_point[g] = multiplier * (-group.a * sum_lanes(outside_lanes));
  }
}

}  // namespace

void check(const FakeQuantGrid& grid, Extent extent) {
  const auto fail = [](const std::string& what, int64_t found) {
    throw std::invalid_argument("fake_quant: expected " + what + ", found " + std::to_string(found));
  };
  const bool integer = grid.kind == Grid::kSymmetric || grid.kind == Grid::kAsymmetric;
  if (has_signs(grid.kind) && grid.bits != 1) fail("1 bit for binary grids", grid.bits);
  if (!has_signs(grid.kind) && (grid.bits < 2 || grid.bits > (integer ? 8 : 2)))
    fail(integer ? "2 to 8 bits" : "2 bits for SEQ, ternary and BitNet", grid.bits);
  if (extent.num_rows < 0 || extent.num_columns < 0) fail("sizes of at least 0", extent.num_columns);
  if (grid.group_size < 1 || extent.num_columns % grid.group_size != 0)
    fail("a group_size that divides " + std::to_string(extent.num_columns), grid.group_size);
}

double gradient_multiplier(const FakeQuantGrid& grid) {
  const bool integer = grid.kind == Grid::kSymmetric || grid.kind == Grid::kAsymmetric;
  const double highest = integer ? (1 << (grid.bits - 1)) - 1 : 1;
  return 1 / std::sqrt(static_cast<double>(grid.group_size) * highest);
}

template <class T>
void fake_quant_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w,
                    const T* scale, const T* zero_point, T* out) {
  const int64_t groups = extent.num_columns / grid.group_size, begin = row_begin * groups, end = row_end * groups;
  for_grid(grid.kind, [&]<Grid kGrid>() {
    switch (grid.dequant_rounding) {
      case Rounding::kNone:
        return run_widest<forward_loop<kGrid, Rounding::kNone, T>>(grid, begin, end, w, scale, zero_point, out);
      case Rounding::kBFloat16:
        return run_widest<forward_loop<kGrid, Rounding::kBFloat16, T>>(grid, begin, end, w, scale, zero_point, out);
      case Rounding::kFloat16:
        return run_widest<forward_loop<kGrid, Rounding::kFloat16, T>>(grid, begin, end, w, scale, zero_point, out);
    }
  });
}

template <class T>
void fake_quant_codes_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w,
                          const T* scale, const T* zero_point, uint8_t* codes, T* stored, int32_t* zero) {
  const int64_t groups = extent.num_columns / grid.group_size, begin = row_begin * groups, end = row_end * groups;
  for_grid(grid.kind, [&]<Grid kGrid>() {
    run_widest<codes_loop<kGrid, T>>(grid, begin, end, w, scale, zero_point, codes, stored, zero);
  });
}

template <class T>
void fake_quant_backward_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end,
                             const T* grad, const T* w, const T* scale, const T* zero_point, T* grad_w, T* grad_scale,
                             T* grad_zero_point) {
  const int64_t groups = extent.num_columns / grid.group_size, begin = row_begin * groups, end = row_end * groups;
  const T multiplier = static_cast<T>(gradient_multiplier(grid));
  for_grid(grid.kind, [&]<Grid kGrid>() {
    run_widest<backward_loop<kGrid, T>>(grid, begin, end, multiplier, grad, w, scale, zero_point, grad_w, grad_scale,
                                        grad_zero_point);
  });
}

#define SATIN_INSTANTIATE(T)                                                                                          \
  template void fake_quant_cpu<T>(const FakeQuantGrid&, Extent, int64_t, int64_t, const T*, const T*, const T*, T*);  \
  template void fake_quant_codes_cpu<T>(const FakeQuantGrid&, Extent, int64_t, int64_t, const T*, const T*, const T*, \
                                        uint8_t*, T*, int32_t*);                                                      \
  template void fake_quant_backward_cpu<T>(const FakeQuantGrid&, Extent, int64_t, int64_t, const T*, const T*,        \
                                           const T*, const T*, T*, T*, T*);
SATIN_INSTANTIATE(float)
SATIN_INSTANTIATE(double)
#undef SATIN_INSTANTIATE

}  // namespace satin::kernels
