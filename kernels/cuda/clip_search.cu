// CUDA kernel of clip_search.h: all candidates of a group in one pass. A thread keeps its first kVectorsAThread vectors
// in registers, which is the whole of a group of up to 512 weights (4096 where a block owns it), and reads the others
// again for each candidate.
#include "kernels/clip_search_math.h"
#include "kernels/cuda/fake_quant_levels.cuh"
#include "kernels/cuda/team_statistics.cuh"

namespace satin::kernels {
namespace {

struct ClipSearchItem {
  const void *w, *importance;
  void *scale, *zero_point;
  int64_t groups_per_row;
  Layout layout;
};

template <class W, int V>
struct WeightedPack {
  Pack<W, V> w;
  Pack<Compute<W>, V> importance;
};

/// importance null: all one.
template <int V, class W>
__device__ __forceinline__ WeightedPack<W, V> load_weighted(const W* w, const Compute<W>* importance, int i) {
  WeightedPack<W, V> result;
  result.w = load_pack<V>(w + i);
  if (importance) {
    result.importance = load_pack<V>(importance + i);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j) result.importance.values[j] = 1;
  }
  return result;
}

template <Grid kGrid, class C, class W, int V>
__device__ __forceinline__ C add_errors(C sum, const LevelsOf<kGrid, C, W, V>& levels_of,
                                        const WeightedPack<W, V>& pack) {
  C levels[V];
  levels_of(pack.w, levels);
#pragma unroll
  for (int j = 0; j < V; ++j)
    sum += clip_error(pack.importance.values[j], levels_of.group.stored * levels[j], load_as<C>(pack.w.values[j]));
  return sum;
}

template <Grid kGrid, class W, int V>
__global__ void __launch_bounds__(kThreads) clip_search_kernel(const FakeQuantGrid grid, const ClipSearchItem item) {
  using C = Compute<W>;
  const Place at = place(item.layout, blockIdx.x);
  const bool active = at.group < item.layout.num_groups;
  const int64_t own = active ? at.group : 0;
  const int group_size = item.layout.group_size, stride = at.team * V, begin = active ? at.lane * V : group_size;
  const W* __restrict__ w = static_cast<const W*>(item.w) + own * group_size;
  const C* importance = static_cast<const C*>(item.importance);
  if (importance) importance += own % item.groups_per_row * group_size;

  GroupExtremes<C> weights, importances;
  for (int i = begin; i < group_size; i += stride) {
    const WeightedPack<W, V> pack = load_weighted<V>(w, importance, i);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      weights.add(load_as<C>(pack.w.values[j]));
      importances.add(pack.importance.values[j]);
    }
  }
  weights = team_statistics(weights, at.team);
  importances = team_statistics(importances, at.team);
  if (!(importances.high > C(0))) importance = nullptr;

  WeightedPack<W, V> kept[kVectorsAThread];
#pragma unroll
  for (int k = 0; k < kVectorsAThread; ++k)
    if (begin + k * stride < group_size) kept[k] = load_weighted<V>(w, importance, begin + k * stride);
  constexpr ClipLadder ladder = clip_ladder(kGrid);
  BestClip<kGrid, C> best{};
#pragma unroll 1
  for (int step = ladder.first; step >= ladder.last; --step) {
    const Group<kGrid, C> group = clip_candidate<kGrid, C>(grid, weights, step);
    const LevelsOf<kGrid, C, W, V> levels_of(grid, group);
    C sum = 0;
#pragma unroll
    for (int k = 0; k < kVectorsAThread; ++k)
      if (begin + k * stride < group_size) sum = add_errors(sum, levels_of, kept[k]);
#pragma unroll 1
    for (int i = begin + kVectorsAThread * stride; i < group_size; i += stride)
      sum = add_errors(sum, levels_of, load_weighted<V>(w, importance, i));
    best.take(step == ladder.first, team_sum(sum, at.team), group);
  }
  if (!active || at.lane != 0) return;
  static_cast<C*>(item.scale)[at.group] = best.scale;
  if constexpr (kGrid == Grid::kAsymmetric) static_cast<C*>(item.zero_point)[at.group] = best.zero_point;
}

}  // namespace

void clip_search_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* importance,
                      void* scale, void* zero_point, CUstream_st* stream) {
  check(grid, extent);
  if (extent.num_rows == 0 || extent.num_columns == 0) return;
  for_weight(w_dtype, [&]<class W>(Type<W>) {
    for_grid(grid.kind, [&]<Grid kGrid>() {
      launch_matrix("clip_search", extent, grid.group_size, {w, importance},
                    [&]<int V>(const Layout& layout, unsigned num_blocks) {
                      launch_kernel(clip_search_kernel<kGrid, W, V>, num_blocks, stream, grid,
                                    ClipSearchItem{w, importance, scale, zero_point,
                                                   extent.num_columns / grid.group_size, layout});
                    });
    });
  });
  check_launch("clip_search_cuda");
}

}  // namespace satin::kernels
