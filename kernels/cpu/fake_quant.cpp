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

/// Loops are function objects' operators turned into always_inline functions, so that run_widest can specialise them.
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
    const auto add = [&](int64_t i, int lane) __attribute__((always_inline)) {
      const T u = ws[i] / group.a, q = group.level(u) * unit<kGrid, T>();
      const bool inside = group.inside(u);
      out[i] = inside ? gs[i] : T(0);
      scale_lanes[lane] += gs[i] * (inside ? q - u : q);
      outside_lanes[lane] += inside ? T(0) : gs[i];
    };
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
    for (int lane = 0; i + lane < n; ++lane) add(i + lane, lane);
    grad_scale[g] = multiplier * sum_lanes(scale_lanes);
    if constexpr (kGrid == Grid::kAsymmetric) grad_zero_point[g] = multiplier * (-group.a * sum_lanes(outside_lanes));
  }
}

}  // namespace

void check(const FakeQuantGrid& grid, Extent extent) {
  const auto fail = [](const std::string& what, int64_t found) {
    throw std::invalid_argument("fake_quant: expected " + what + ", found " + std::to_string(found));
  };
  const bool two_bits = grid.kind == Grid::kSeq || grid.kind == Grid::kTernary;
  if (grid.bits < 2 || grid.bits > (two_bits ? 2 : 8))
    fail(two_bits ? "2 bits for SEQ and ternary" : "2 to 8 bits", grid.bits);
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
