// Backward of fake_quant.h: mask, scale and zero-point gradients in one pass over weight and gradient.
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {
namespace {

struct BackwardItem {
  const void *grad, *w, *scale, *zero_point;
  void *grad_w, *grad_scale, *grad_zero_point;
  double multiplier;
  Layout layout;
};
using BackwardBatch = Batch<BackwardItem, 44>;
static_assert(sizeof(BackwardBatch) <= 4000);

template <Grid kGrid, class W, class O, int V>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const FakeQuantGrid grid, const __grid_constant__ BackwardBatch batch) {
  using C = Compute<W>;
  const BackwardItem& item = batch.find();
  const auto* __restrict__ grad = static_cast<const O*>(item.grad);
  const auto* __restrict__ w = static_cast<const W*>(item.w);
  const auto* __restrict__ scale = static_cast<const C*>(item.scale);
  const auto* __restrict__ zero_point = static_cast<const C*>(item.zero_point);
  auto* __restrict__ grad_w = static_cast<W*>(item.grad_w);
  const Place at = place(item.layout);
  const int group_size = item.layout.group_size, step = at.team * V;
  const C multiplier = static_cast<C>(item.multiplier);

  const auto constants = [&](int64_t g) {
    return Group<kGrid, C>(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : C(0));
  };
  C scale_sum, outside_sum;
  const auto add = [&](const Group<kGrid, C>& group, const Divider<C>& divide, const Pack<W, V>& ws,
                       const Pack<O, V>& gs, W* to) {
    Pack<W, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const C u = divide(load_as<C>(ws.values[j])), d = load_as<C>(gs.values[j]);
      const C q = group.level(u) * unit<kGrid, C>();
      const bool inside = group.inside(u);
      result.values[j] = store_as<W>(inside ? d : C(0));
      scale_sum += d * (inside && kGrid != Grid::kBinary ? q - u : q);
      outside_sum += inside ? C(0) : d;
    }
    store_pack<V>(to, result);
  };
  const auto finish = [&](int64_t g, C a, bool active) {  // every thread of the block takes part
    scale_sum = team_sum(scale_sum, at.team);
    if constexpr (kGrid == Grid::kAsymmetric) outside_sum = team_sum(outside_sum, at.team);
    if (!active || at.lane != 0) return;
    static_cast<C*>(item.grad_scale)[g] = multiplier * scale_sum;
    if constexpr (kGrid == Grid::kAsymmetric)
      static_cast<C*>(item.grad_zero_point)[g] = multiplier * (-a * outside_sum);
  };

  if (group_size == step && item.layout.rounds() == kGroupsPerTeam) {  // a vector a thread: all loads first
    Pack<W, V> ws[kGroupsPerTeam];
    Pack<O, V> gs[kGroupsPerTeam];
#pragma unroll
    for (int r = 0; r < kGroupsPerTeam; ++r) {
      const int64_t g = at.group + r * at.stride;
      if (g >= item.layout.num_groups) continue;
      ws[r] = load_pack<V>(w + g * group_size + at.lane * V);
      gs[r] = load_pack<V>(grad + g * group_size + at.lane * V);
    }
#pragma unroll
    for (int r = 0; r < kGroupsPerTeam; ++r) {
      const int64_t wanted = at.group + r * at.stride;
      const bool active = wanted < item.layout.num_groups;
      const int64_t g = active ? wanted : 0;
      const Group<kGrid, C> group = constants(g);
      scale_sum = outside_sum = 0;
      if (active) add(group, Divider<C>(group.a), ws[r], gs[r], grad_w + g * group_size + at.lane * V);
      finish(g, group.a, active);
    }
    return;
  }
  for (int r = 0; r < item.layout.rounds(); ++r) {
    const int64_t wanted = at.group + r * at.stride;
    const bool active = wanted < item.layout.num_groups;
    const int64_t g = active ? wanted : 0, first = g * group_size;
    const Group<kGrid, C> group = constants(g);
    const Divider<C> divide(group.a);
    scale_sum = outside_sum = 0;
#pragma unroll 2
    for (int i = active ? at.lane * V : group_size; i < group_size; i += step)
      add(group, divide, load_pack<V>(w + first + i), load_pack<V>(grad + first + i), grad_w + first + i);
    finish(g, group.a, active);
  }
}

}  // namespace

void fake_quant_backward_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantBackwardTask> tasks, Dtype grad_dtype,
                              Dtype w_dtype, CUstream_st* stream) {
  for (const FakeQuantBackwardTask& task : tasks) check_tasks(grid, task.extent, task.group_size);
  const auto fits = [](const FakeQuantBackwardTask& task) {
    return task.group_size % kVector == 0 && aligned({task.grad, task.w, task.grad_w});
  };
  const auto make_item = [&](const FakeQuantBackwardTask& task, const Layout& layout) {
    FakeQuantGrid own = grid;
    own.group_size = task.group_size;
    return BackwardItem{task.grad,   task.w,          task.scale,           task.zero_point,
                        task.grad_w, task.grad_scale, task.grad_zero_point, gradient_multiplier(own),
                        layout};
  };
  for_weight_and_value(w_dtype, grad_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    for_grid_kind(grid.kind, [&]<Grid kGrid>() {
      const auto run = [&]<int V>() {
        launch_batches<BackwardBatch, V>(tasks, fits, make_item, [&](const BackwardBatch& batch, unsigned blocks) {
          backward_kernel<kGrid, W, O, V><<<blocks, kThreads, 0, stream>>>(grid, batch);
        });
      };
      run.template operator()<kVector>();
      run.template operator()<1>();
    });
  });
  check_launch("fake_quant_backward_cuda");
}

}  // namespace satin::kernels
