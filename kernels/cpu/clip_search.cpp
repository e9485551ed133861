// CPU kernel of clip_search.h: a group stays in the first-level cache while all ratios are tried.
#include "kernels/clip_search.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;

template <Grid kGrid, class T>
SATIN_INLINE T squared_error(const Group<kGrid, T>& group, int64_t n, const T* __restrict w) {
  const T a = group.a, stored = group.stored;
  T lanes[kLanes] = {};
  const auto add = [&](int64_t i, int lane) __attribute__((always_inline)) {
    const T error = stored * group.level(w[i] / a) - w[i];
    lanes[lane] += error * error;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  for (int lane = 0; i + lane < n; ++lane) add(i + lane, lane);
  T sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

template <Grid kGrid, class T>
SATIN_INLINE void search_loop(FakeQuantGrid grid, int64_t begin, int64_t end, const T* weights, T* scale,
                              T* zero_point) {
  const T top = T((1 << grid.bits) - 1);
  const T highest = kGrid == Grid::kSymmetric ? T((1 << (grid.bits - 1)) - 1) : T(1);
  constexpr ClipLadder ladder = clip_ladder(kGrid);
  for (int64_t g = begin; g < end; ++g) {
    const T* __restrict w = weights + g * grid.group_size;
    T low = 0, high = 0, nan = 0;
    for (int64_t i = 0; i < grid.group_size; ++i) {
      low = w[i] < low ? w[i] : low;
      high = w[i] > high ? w[i] : high;
      nan += w[i] - w[i];  // NaN where a weight is NaN or infinite
    }
    const T largest = -low > high ? -low : high;
    T best_error = 0, best_scale = 0, best_zero = 0;
    for (int step = ladder.first; step >= ladder.last; --step) {
      const T ratio = T(step) / T(kClipSteps);
      T candidate, zero = 0;
      if constexpr (kGrid == Grid::kAsymmetric) {
        candidate = stored_scale<kGrid, T>(grid.scale_rounding, (high * ratio - low * ratio) / top);
        zero = round_half_even(clamp(-(low * ratio) / candidate, T(0), top));
      } else {
        candidate = largest * ratio / highest;
      }
      const Group<kGrid, T> group(grid, candidate + nan, zero);
      const T error = squared_error<kGrid, T>(group, grid.group_size, w);
      if (step == ladder.first || error < best_error) {
        best_error = error;
        best_scale = group.a;
        best_zero = zero;
      }
    }
    scale[g] = best_scale;
    if constexpr (kGrid == Grid::kAsymmetric) zero_point[g] = best_zero;
  }
}

}  // namespace

template <class T>
void clip_search_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w, T* scale,
                     T* zero_point) {
  const int64_t groups = extent.num_columns / grid.group_size;
  for_grid(grid.kind, [&]<Grid kGrid>() {
    run_widest<search_loop<kGrid, T>>(grid, row_begin * groups, row_end * groups, w, scale, zero_point);
  });
}

template void clip_search_cpu<float>(const FakeQuantGrid&, Extent, int64_t, int64_t, const float*, float*, float*);
template void clip_search_cpu<double>(const FakeQuantGrid&, Extent, int64_t, int64_t, const double*, double*, double*);

}  // namespace satin::kernels
