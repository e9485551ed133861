// CPU kernel of clip_search.h: a group stays in the first-level cache while all ratios are tried.
#include "kernels/clip_search.h"

#include "kernels/clip_search_math.h"
#include "kernels/cpu/dispatch.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;

template <bool kWeighted, Grid kGrid, class T>
SATIN_INLINE T squared_error(const Group<kGrid, T>& group, int64_t n, const T* __restrict w,
                             const T* __restrict importance) {
  const T a = group.a, stored = group.stored;
  T lanes[kLanes] = {};
  const auto add = [&](int64_t i, int lane) __attribute__((always_inline)) {
    lanes[lane] += clip_error(kWeighted ? importance[i] : T(1), stored * group.level(w[i] / a), w[i]);
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
SATIN_INLINE void search_loop(FakeQuantGrid grid, int64_t groups, int64_t begin, int64_t end, const T* weights,
                              const T* importances, T* scale, T* zero_point) {
  constexpr ClipLadder ladder = clip_ladder(kGrid);
  const int64_t n = grid.group_size;
  for (int64_t g = begin; g < end; ++g) {
    const T* __restrict w = weights + g * n;
    GroupExtremes<T> extremes;
    for (int64_t i = 0; i < n; ++i) extremes.add(w[i]);
    const T* importance = importances ? importances + g % groups * n : nullptr;
    bool weighted = false;
    for (int64_t i = 0; importance && i < n; ++i) weighted |= importance[i] > T(0);
    BestClip<kGrid, T> best{};
    for (int step = ladder.first; step >= ladder.last; --step) {
      const Group<kGrid, T> group = clip_candidate<kGrid, T>(grid, extremes, step);
      const T error =
          weighted ? squared_error<true>(group, n, w, importance) : squared_error<false>(group, n, w, importance);
      best.take(step == ladder.first, error, group);
    }
    scale[g] = best.scale;
    if constexpr (kGrid == Grid::kAsymmetric) zero_point[g] = best.zero_point;
  }
}

}  // namespace

template <class T>
void clip_search_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w,
                     const T* importance, T* scale, T* zero_point) {
  const int64_t groups = extent.num_columns / grid.group_size;
  for_grid(grid.kind, [&]<Grid kGrid>() {
    run_widest<search_loop<kGrid, T>>(grid, groups, row_begin * groups, row_end * groups, w, importance, scale,
                                      zero_point);
  });
}

template void clip_search_cpu<float>(const FakeQuantGrid&, Extent, int64_t, int64_t, const float*, const float*, float*,
                                     float*);
template void clip_search_cpu<double>(const FakeQuantGrid&, Extent, int64_t, int64_t, const double*, const double*,
                                      double*, double*);

}  // namespace satin::kernels
