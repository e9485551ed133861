// CUDA kernel of data_scale.h: one pass over the weights.
#include "kernels/cuda/team_statistics.cuh"
#include "kernels/data_scale_math.h"

namespace satin::kernels {
namespace {

struct DataScaleItem {
  const void* w;
  void *scale, *zero_point;
  Layout layout;
};

template <Grid kGrid, class W, int V>
__global__ void __launch_bounds__(kThreads)
    data_scale_kernel(const FakeQuantGrid grid, const __grid_constant__ Batch<DataScaleItem> batch) {
  using C = Compute<W>;
  const auto [item, block] = batch.find();
  const Place at = place(item.layout, block);
  const bool active = at.group < item.layout.num_groups;
  const int group_size = item.layout.group_size;
  const W* __restrict__ w = static_cast<const W*>(item.w) + (active ? at.group : 0) * group_size;
  GroupStatistics<kGrid, C> statistics;
#pragma unroll 2
  for (int i = active ? at.lane * V : group_size; i < group_size; i += at.team * V) {
    const Pack<W, V> ws = load_pack<V>(w + i);
#pragma unroll
    for (int j = 0; j < V; ++j) statistics.add(load_as<C>(ws.values[j]));
  }
  statistics = team_statistics(statistics, at.team);
  if (!active || at.lane != 0) return;
  const DataScale<C> found = data_scale<kGrid, C>(grid, statistics, group_size);
  static_cast<C*>(item.scale)[at.group] = found.scale;
  if constexpr (kGrid == Grid::kAsymmetric) static_cast<C*>(item.zero_point)[at.group] = found.zero_point;
}

/// The task for vectors of V weights, when those are the widest that fit it.
template <int V>
std::optional<Work<DataScaleItem>> data_scale_work(const DataScaleTask& task) {
  if (fits_vectors(task.group_size, {task.w}) != (V > 1)) return std::nullopt;
  const Layout layout = make_layout(task.extent, task.group_size, V);
  return Work<DataScaleItem>{{task.w, task.scale, task.zero_point, layout}, layout.blocks()};
}

}  // namespace

void data_scale_cuda(const FakeQuantGrid& grid, std::span<const DataScaleTask> tasks, Dtype w_dtype,
                     CUstream_st* stream) {
  for (const DataScaleTask& task : tasks) check_tasks(grid, task.extent, task.group_size);
  for_weight(w_dtype, [&]<class W>(Type<W>) {
    for_grid(grid.kind, [&]<Grid kGrid>() {
      const auto run = [&]<int V>() {
        launch_batches<DataScaleItem>(tasks, data_scale_work<V>, [&](const Batch<DataScaleItem>& batch) {
          launch_kernel(data_scale_kernel<kGrid, W, V>, batch.num_blocks(), stream, grid, batch);
        });
      };
      run.template operator()<kVector>();
      run.template operator()<1>();
    });
  });
  check_launch("data_scale_cuda");
}

}  // namespace satin::kernels
