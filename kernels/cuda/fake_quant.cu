// Forward of fake_quant.h.
#include "kernels/cuda/fake_quant_levels.cuh"

namespace satin::kernels {
namespace {

constexpr int64_t kPart = 64;

struct ForwardItem {
  const void *w, *scale, *zero_point;
  void* out;
  int parts_a_group;  ///< a large group is several groups of the layout: nothing is summed here, and short ones balance
  int parts_shift;    ///< its log2, or -1
  Layout layout;

  __device__ __forceinline__ int64_t group_of(int64_t part) const {
    return parts_shift >= 0 ? part >> parts_shift : static_cast<uint32_t>(part) / static_cast<uint32_t>(parts_a_group);
  }
};

/// kWhole: a thread takes exactly kVectorsAThread vectors of its part.
template <Grid kGrid, class W, class O, int V, bool kWhole>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const FakeQuantGrid grid, const __grid_constant__ Batch<ForwardItem> batch) {
  using C = Compute<W>;
  const auto [item, block] = batch.find();
  const W* __restrict__ w = static_cast<const W*>(item.w);
  const C* __restrict__ scale = static_cast<const C*>(item.scale);
  const C* __restrict__ zero_point = static_cast<const C*>(item.zero_point);
  O* __restrict__ out = static_cast<O*>(item.out);
  const Place at = place(item.layout, block);
  if (at.group >= item.layout.num_groups) return;
  const int group_size = item.layout.group_size, step = at.team * V, first = at.lane * V;
  w += at.group * group_size;
  out += at.group * group_size;

  Pack<W, V> ws[kVectorsAThread];
  if constexpr (kWhole) {
#pragma unroll
    for (int k = 0; k < kVectorsAThread; ++k) ws[k] = load_pack<V>(w + first + k * step);
  }
  const int64_t g = item.group_of(at.group);
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
  if constexpr (kWhole) {
#pragma unroll
    for (int k = 0; k < kVectorsAThread; ++k) quantize(ws[k], out + first + k * step);
  } else {
#pragma unroll 2
    for (int i = first; i < group_size; i += step) quantize(load_pack<V>(w + i), out + i);
  }
}

/// The task for vectors of V weights, when those are the widest that fit it.
template <int V, bool kWhole>
std::optional<Work<ForwardItem>> forward_work(const FakeQuantTask& task) {
  const bool fits = fits_vectors(task.group_size, {task.w, task.out});
  if (fits != (V > 1)) return std::nullopt;
  const bool splits =
      task.group_size % kPart == 0 && task.extent.num_rows * task.extent.num_columns / kPart < 0x7fffffff;
  const int64_t part = splits ? kPart : task.group_size;
  const Layout layout = make_layout(task.extent, part, V);
  if ((fits && layout.whole(V)) != kWhole) return std::nullopt;
  const auto parts = static_cast<unsigned>(task.group_size / part);
  return Work<ForwardItem>{{task.w, task.scale, task.zero_point, task.out, static_cast<int>(parts),
                            std::has_single_bit(parts) ? std::countr_zero(parts) : -1, layout},
                           layout.blocks()};
}

}  // namespace

void fake_quant_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantTask> tasks, Dtype w_dtype, Dtype out_dtype,
                     CUstream_st* stream) {
  for (const FakeQuantTask& task : tasks) check_tasks(grid, task.extent, task.group_size);
  for_weight_and_value(w_dtype, out_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    for_grid(grid.kind, [&]<Grid kGrid>() {
      const auto run = [&]<int V, bool kWhole>() {
        launch_batches<ForwardItem>(tasks, forward_work<V, kWhole>, [&](const Batch<ForwardItem>& batch) {
          launch_kernel(forward_kernel<kGrid, W, O, V, kWhole>, batch.num_blocks(), stream, grid, batch);
        });
      };
      run.template operator()<kVector, true>();
      run.template operator()<kVector, false>();
      run.template operator()<1, false>();
    });
  });
  check_launch("fake_quant_cuda");
}

}  // namespace satin::kernels
