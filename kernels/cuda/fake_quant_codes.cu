// Codes of fake_quant.h.
#include "kernels/cuda/fake_quant_levels.cuh"

namespace satin::kernels {
namespace {

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
  const Place at = place(item.layout, blockIdx.x);
  if (at.group >= item.layout.num_groups) return;
  const int group_size = item.layout.group_size;
  const int64_t first = at.group * group_size;
  const Group<kGrid, C> group(grid, scale[at.group], kGrid == Grid::kAsymmetric ? zero_point[at.group] : C(0));
  const LevelsOf<kGrid, C, W, V> levels_of(grid, group);
  for (int i = at.lane * V; i < group_size; i += at.team * V) {
    C levels[V];
    levels_of(load_pack<V>(w + first + i), levels);
    Pack<uint8_t, V> result;
#pragma unroll
    for (int j = 0; j < V; ++j) result.values[j] = static_cast<uint8_t>(group.code(levels[j]));
    store_pack<V>(item.codes + first + i, result);
  }
  if (at.lane == 0) {
    static_cast<C*>(item.stored)[at.group] = group.stored;
    item.zero[at.group] = group.zero_code();
  }
}

}  // namespace

void fake_quant_codes_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* scale,
                           const void* zero_point, uint8_t* codes, void* stored, int32_t* zero, CUstream_st* stream) {
  check(grid, extent);
  if (extent.num_rows == 0 || extent.num_columns == 0) return;
  for_weight(w_dtype, [&]<class W>(Type<W>) {
    for_grid(grid.kind, [&]<Grid kGrid>() {
      launch_matrix("fake_quant", extent, grid.group_size, {w, codes},
                    [&]<int V>(const Layout& layout, unsigned num_blocks) {
                      launch_kernel(codes_kernel<kGrid, W, V>, num_blocks, stream, grid,
                                    CodesItem{w, scale, zero_point, codes, stored, zero, layout});
                    });
    });
  });
  check_launch("fake_quant_codes_cuda");
}

}  // namespace satin::kernels
