// Backward of fake_quant.h: mask, scale and zero-point gradients in one pass over weight and gradient.
#include "kernels/cuda/fake_quant_levels.cuh"

namespace satin::kernels {
namespace {

struct BackwardItem {
  const void *grad, *w, *scale, *zero_point;
  void *grad_w, *grad_scale, *grad_zero_point;
  double multiplier;
  Layout layout;
};

/// Blocks that a multiprocessor should hold at once: found by measurement, more would spill registers.
template <class W, bool kWhole>
constexpr int kResidentBlocks = std::is_same_v<W, double>             ? 1
                                : std::is_same_v<W, float> && !kWhole ? 3
                                                                      : 4;

/// kWhole: a thread takes exactly kVectorsAThread vectors of its group.
template <Grid kGrid, class W, class O, int V, bool kWhole>
__global__ void __launch_bounds__(kThreads, kResidentBlocks<W, kWhole>)
    backward_kernel(const FakeQuantGrid grid, const __grid_constant__ Batch<BackwardItem> batch) {
  using C = Compute<W>;
  const auto [item, block] = batch.find();
  const O* __restrict__ grad = static_cast<const O*>(item.grad);
  const W* __restrict__ w = static_cast<const W*>(item.w);
  const C* __restrict__ scale = static_cast<const C*>(item.scale);
  const C* __restrict__ zero_point = static_cast<const C*>(item.zero_point);
  W* __restrict__ grad_w = static_cast<W*>(item.grad_w);
  const Place at = place(item.layout, block);
  const bool active = at.group < item.layout.num_groups;  // every thread of the block takes part in the sums
  const int64_t g = active ? at.group : 0;
  const int group_size = item.layout.group_size, step = at.team * V, first = at.lane * V;
  w += g * group_size;
  grad += g * group_size;
  grad_w += g * group_size;

  Pack<W, V> ws[kVectorsAThread];
  Pack<O, V> gs[kVectorsAThread];
  if constexpr (kWhole) {
#pragma unroll
    for (int k = 0; k < kVectorsAThread; ++k) {
      ws[k] = load_pack<V>(w + first + k * step);
      gs[k] = load_pack<V>(grad + first + k * step);
    }
  }
  const Group<kGrid, C> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : C(0));
  const QuickLevels<kGrid> quick(grid, static_cast<float>(group.a));
  const Divider<C> divide(group.a);
  C scale_sum = 0, outside_sum = 0;
  // With a q = stored level, the term d (q - u) is d (stored level - w) / a: divided once a group, and exact whatever
  // was enough to find the level.
  const auto add_one = [&](W weight, C level, bool inside, O gradient, W& result) {
    const C w = load_as<C>(weight), d = load_as<C>(gradient);
    result = store_as<W>(inside ? d * group.gradient_factor(w) : C(0));
    scale_sum = fma(d, fma(group.stored, level, inside && !kHasSigns<kGrid> ? -w : C(0)), scale_sum);
    if (kGrid == Grid::kAsymmetric && !inside) outside_sum += d;
  };
  const auto add = [&](const Pack<W, V>& weights, const Pack<O, V>& gradients, W* to) {
    Pack<W, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const C w = load_as<C>(weights.values[j]);
      if constexpr (kGrid == Grid::kAsymmetric && std::is_same_v<C, float>) {
        const float rounded = quick.rounded(group, w), level = clamp(rounded, group.low, group.high);
        add_one(weights.values[j], level, level == rounded, gradients.values[j], result.values[j]);
      } else {
        const C u = divide(w);
        add_one(weights.values[j], group.level(u), group.inside(u), gradients.values[j], result.values[j]);
      }
    }
    store_pack<V>(to, result);
  };
  if constexpr (kWhole) {
    if (active) {
#pragma unroll
      for (int k = 0; k < kVectorsAThread; ++k) add(ws[k], gs[k], grad_w + first + k * step);
    }
  } else {
    for (int i = active ? first : group_size; i < group_size; i += kVectorsAThread * step) {
#pragma unroll
      for (int k = 0; k < kVectorsAThread; ++k) {
        if (i + k * step >= group_size) break;
        ws[k] = load_pack<V>(w + i + k * step);
        gs[k] = load_pack<V>(grad + i + k * step);
      }
#pragma unroll
      for (int k = 0; k < kVectorsAThread; ++k)
        if (i + k * step < group_size) add(ws[k], gs[k], grad_w + i + k * step);
    }
  }
  scale_sum = team_sum(scale_sum, at.team);
  if constexpr (kGrid == Grid::kAsymmetric) outside_sum = team_sum(outside_sum, at.team);
  if (!active || at.lane != 0) return;
  const C multiplier = static_cast<C>(item.multiplier);
  static_cast<C*>(item.grad_scale)[g] = multiplier * (scale_sum / group.a);
  if constexpr (kGrid == Grid::kAsymmetric)
    static_cast<C*>(item.grad_zero_point)[g] = multiplier * (-group.a * outside_sum);
}

/// The task for vectors of V weights, when those are the widest that fit it.
template <int V, bool kWhole>
std::optional<Work<BackwardItem>> backward_work(const FakeQuantGrid& grid, const FakeQuantBackwardTask& task) {
  const bool fits = fits_vectors(task.group_size, {task.grad, task.w, task.grad_w});
  const Layout layout = make_layout(task.extent, task.group_size, V);
  if (fits != (V > 1) || (fits && layout.whole(V)) != kWhole) return std::nullopt;
  FakeQuantGrid own = grid;
  own.group_size = task.group_size;
  return Work<BackwardItem>{{task.grad, task.w, task.scale, task.zero_point, task.grad_w, task.grad_scale,
                             task.grad_zero_point, gradient_multiplier(own), layout},
                            layout.blocks()};
}

}  // namespace

void fake_quant_backward_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantBackwardTask> tasks, Dtype grad_dtype,
                              Dtype w_dtype, CUstream_st* stream) {
  for (const FakeQuantBackwardTask& task : tasks) check_tasks(grid, task.extent, task.group_size);
  for_weight_and_value(w_dtype, grad_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    for_grid(grid.kind, [&]<Grid kGrid>() {
      const auto run = [&]<int V, bool kWhole>() {
        const auto make_work = [&](const FakeQuantBackwardTask& task) { return backward_work<V, kWhole>(grid, task); };
        launch_batches<BackwardItem>(tasks, make_work, [&](const Batch<BackwardItem>& batch) {
          launch_kernel(backward_kernel<kGrid, W, O, V, kWhole>, batch.num_blocks(), stream, grid, batch);
        });
      };
      run.template operator()<kVector, true>();
      run.template operator()<kVector, false>();
      run.template operator()<1, false>();
    });
  });
  check_launch("fake_quant_backward_cuda");
}

}  // namespace satin::kernels
