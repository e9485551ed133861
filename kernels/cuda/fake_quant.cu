// Forward and codes of fake_quant.h.
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {
namespace {

struct ForwardItem {
  const void *w, *scale, *zero_point;
  void* out;
  Layout layout;
};
using ForwardBatch = Batch<ForwardItem, 64>;
static_assert(sizeof(ForwardBatch) <= 4000);

template <Grid kGrid, class W, class O, int V>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const FakeQuantGrid grid, const __grid_constant__ ForwardBatch batch) {
  using C = Compute<W>;
  const ForwardItem& item = batch.find();
  const auto* __restrict__ w = static_cast<const W*>(item.w);
  const auto* __restrict__ scale = static_cast<const C*>(item.scale);
  const auto* __restrict__ zero_point = static_cast<const C*>(item.zero_point);
  auto* __restrict__ out = static_cast<O*>(item.out);
  const Place at = place(item.layout);
  const int group_size = item.layout.group_size, step = at.team * V;

  const auto quantize = [&](const Group<kGrid, C>& group, const Divider<C>& divide, const Pack<W, V>& ws, O* to) {
    Pack<O, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j)
      result.values[j] =
          store_rounded<O>(grid.dequant_rounding, group.stored * group.level(divide(load_as<C>(ws.values[j]))));
    store_pack<V>(to, result);
  };
  const auto constants = [&](int64_t g) {
    return Group<kGrid, C>(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : C(0));
  };

  if (group_size == step && item.layout.rounds() == kGroupsPerTeam) {  // a vector a thread: all loads first
    Pack<W, V> ws[kGroupsPerTeam];
#pragma unroll
    for (int r = 0; r < kGroupsPerTeam; ++r) {
      const int64_t g = at.group + r * at.stride;
      if (g < item.layout.num_groups) ws[r] = load_pack<V>(w + g * group_size + at.lane * V);
    }
#pragma unroll
    for (int r = 0; r < kGroupsPerTeam; ++r) {
      const int64_t g = at.group + r * at.stride;
      if (g >= item.layout.num_groups) return;
      const Group<kGrid, C> group = constants(g);
      quantize(group, Divider<C>(group.a), ws[r], out + g * group_size + at.lane * V);
    }
    return;
  }
  for (int r = 0; r < item.layout.rounds(); ++r) {
    const int64_t g = at.group + r * at.stride;
    if (g >= item.layout.num_groups) return;
    const Group<kGrid, C> group = constants(g);
    const Divider<C> divide(group.a);
#pragma unroll 2
    for (int i = at.lane * V; i < group_size; i += step)
      quantize(group, divide, load_pack<V>(w + g * group_size + i), out + g * group_size + i);
  }
}

struct CodesItem {
  const void *w, *scale, *zero_point;
  uint8_t* codes;
  void* stored;
  int32_t* zero;
  Layout layout;
};

template <Grid kGrid, class W, int V>
__global__ void __launch_bounds__(kThreads) codes_kernel(const FakeQuantGrid grid, const CodesItem item) {
  using C = Compute<W>;
  const auto* __restrict__ w = static_cast<const W*>(item.w);
  const auto* __restrict__ scale = static_cast<const C*>(item.scale);
  const auto* __restrict__ zero_point = static_cast<const C*>(item.zero_point);
  const Place at = place(item.layout);
  const int group_size = item.layout.group_size;
  for (int r = 0; r < item.layout.rounds(); ++r) {
    const int64_t g = at.group + r * at.stride;
    if (g >= item.layout.num_groups) return;
    const Group<kGrid, C> group(grid, scale[g], kGrid == Grid::kAsymmetric ? zero_point[g] : C(0));
    const Divider<C> divide(group.a);
    for (int i = at.lane * V; i < group_size; i += at.team * V) {
      const Pack<W, V> ws = load_pack<V>(w + g * group_size + i);
      Pack<uint8_t, V> result;
#pragma unroll
      for (int j = 0; j < V; ++j)
        result.values[j] = static_cast<uint8_t>(group.code(group.level(divide(load_as<C>(ws.values[j])))));
      store_pack<V>(item.codes + g * group_size + i, result);
    }
    if (at.lane == 0) {
      static_cast<C*>(item.stored)[g] = group.stored;
      item.zero[g] = group.zero_code();
    }
  }
}

}  // namespace

void fake_quant_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantTask> tasks, Dtype w_dtype, Dtype out_dtype,
                     CUstream_st* stream) {
  for (const FakeQuantTask& task : tasks) check_tasks(grid, task.extent, task.group_size);
  const auto fits = [](const FakeQuantTask& task) {
    return task.group_size % kVector == 0 && aligned({task.w, task.out});
  };
  const auto make_item = [](const FakeQuantTask& task, const Layout& layout) {
    return ForwardItem{task.w, task.scale, task.zero_point, task.out, layout};
  };
  for_weight_and_value(w_dtype, out_dtype, [&]<class W, class O>(Type<W>, Type<O>) {
    for_grid_kind(grid.kind, [&]<Grid kGrid>() {
      const auto run = [&]<int V>() {
        launch_batches<ForwardBatch, V>(tasks, fits, make_item, [&](const ForwardBatch& batch, unsigned blocks) {
          forward_kernel<kGrid, W, O, V><<<blocks, kThreads, 0, stream>>>(grid, batch);
        });
      };
      run.template operator()<kVector>();
      run.template operator()<1>();
    });
  });
  check_launch("fake_quant_cuda");
}

void fake_quant_codes_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* scale,
                           const void* zero_point, uint8_t* codes, void* stored, int32_t* zero, CUstream_st* stream) {
  check(grid, extent);
  if (extent.num_rows == 0 || extent.num_columns == 0) return;
  for_weight(w_dtype, [&]<class W>(Type<W>) {
    for_grid_kind(grid.kind, [&]<Grid kGrid>() {
      const auto run = [&]<int V>() {
        const Layout layout = make_layout(extent, grid.group_size, V, 0);
        if (layout.blocks() > 0x7fffffff) throw std::invalid_argument("fake_quant: too many groups for one launch");
        codes_kernel<kGrid, W, V><<<static_cast<unsigned>(layout.blocks()), kThreads, 0, stream>>>(
            grid, {w, scale, zero_point, codes, stored, zero, layout});
      };
      if (grid.group_size % kVector == 0 && aligned({w, codes})) {
        run.template operator()<kVector>();
      } else {
        run.template operator()<1>();
      }
    });
  });
  check_launch("fake_quant_codes_cuda");
}

}  // namespace satin::kernels
