// Forward of fake_quant.h.
#include <vector>

#include "kernels/cuda/fake_quant_levels.cuh"

namespace satin::kernels {
namespace {

constexpr int64_t kPart = 64;

struct ForwardItem {
  const void *w, *scale, *zero_point;
  void* out;
  int parts_a_group;  ///< a large group is several groups of the layout: nothing is summed here, and short ones balance
  Layout layout;
};
using ForwardBatch = Batch<ForwardItem>;

template <Grid kGrid, class W, class O, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const FakeQuantGrid grid, const __grid_constant__ ForwardBatch batch) {
  using C = Compute<W>;
  const ForwardItem& item = batch.find();
  const W* __restrict__ w = static_cast<const W*>(item.w);
  const C* __restrict__ scale = static_cast<const C*>(item.scale);
  const C* __restrict__ zero_point = static_cast<const C*>(item.zero_point);
  O* __restrict__ out = static_cast<O*>(item.out);
  const Place at = place(item.layout);
  if (at.group >= item.layout.num_groups) return;
  const int group_size = item.layout.group_size, step = at.team * V;
  w += at.group * group_size;
  out += at.group * group_size;

  const auto first = at.lane * V;
  Pack<W, V> ws[kVectorsAThread];
  const bool whole = group_size == step * kVectorsAThread;
  if (whole) {
#pragma unroll
    for (int k = 0; k < kVectorsAThread; ++k) ws[k] = load_pack<V>(w + first + k * step);
  }
  const int64_t g = static_cast<uint32_t>(at.group) / static_cast<uint32_t>(item.parts_a_group);
  const Group<kGrid, C> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : C(0));
  const LevelsOf<kGrid, C, W, V> levels_of(grid, group);
  const auto quantize = [&](const Pack<W, V>& from, O* to) {
    C levels[V];
    levels_of(from, levels);
    Pack<O, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) result.values[j] = store_rounded<O>(grid.dequant_rounding, group.stored * levels[j]);
    store_pack<V>(to, result);
  };
  if (whole) {
#pragma unroll
    for (int k = 0; k < kVectorsAThread; ++k) quantize(ws[k], out + first + k * step);
  } else {
#pragma unroll 2
    for (int i = first; i < group_size; i += step) quantize(load_pack<V>(w + i), out + i);
  }
}

}  // namespace

void fake_quant_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantTask> tasks, Dtype w_dtype, Dtype out_dtype,
                     CUstream_st* stream) {
  for (const FakeQuantTask& task : tasks) check_tasks(grid, task.extent, task.group_size);
  const auto fits = [](const FakeQuantTask& task) {
    return task.group_size % kVector == 0 && aligned({task.w, task.out});
  };
  const auto part_of = [](const FakeQuantTask& task) {
    const bool splits = task.group_size > 8 * kPart && task.group_size % kPart == 0;
    return splits && task.extent.num_rows * task.extent.num_columns / kPart < 0x7fffffff ? kPart : task.group_size;
  };
  std::vector<FakeQuantTask> parts(tasks.begin(), tasks.end());
  for (FakeQuantTask& task : parts) task.group_size = part_of(task);
  const auto make_item = [&](const FakeQuantTask& part, const Layout& layout) {
    const FakeQuantTask& whole = tasks[static_cast<size_t>(&part - parts.data())];
    return ForwardItem{
        part.w, part.scale, part.zero_point, part.out, static_cast<int>(whole.group_size / part.group_size), layout};
  };
  for_weight_and_value(w_dtype, out_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    for_grid(grid.kind, [&]<Grid kGrid>() {
      launch_batches<ForwardBatch>(std::span<const FakeQuantTask>(parts), fits, make_item,
                                   [&]<int V>(const ForwardBatch& batch, unsigned blocks) {
                                     launch_kernel(forward_kernel<kGrid, W, O, V>, blocks, stream, grid, batch);
                                   });
    });
  });
  check_launch("fake_quant_cuda");
}

}  // namespace satin::kernels
