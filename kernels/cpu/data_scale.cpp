// CPU kernel of data_scale.h.
#include "kernels/data_scale.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/data_scale_math.h"

namespace satin::kernels {
namespace {

constexpr int kLanes = 16;

template <Grid kGrid, class T>
SATIN_INLINE void scale_loop(FakeQuantGrid grid, int64_t begin, int64_t end, const T* weights, T* scale,
                             T* zero_point) {
  for (int64_t g = begin; g < end; ++g) {
    const T* __restrict w = weights + g * grid.group_size;
    GroupStatistics<kGrid, T> lanes[kLanes];
    int64_t i = 0;
    for (; i + kLanes <= grid.group_size; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane].add(w[i + lane]);
    for (int lane = 0; i + lane < grid.group_size; ++lane) lanes[lane].add(w[i + lane]);
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int lane = 0; lane < width; ++lane) lanes[lane].add(lanes[lane + width]);
    const DataScale<T> found = data_scale<kGrid, T>(grid, lanes[0], grid.group_size);
    scale[g] = found.scale;
    if constexpr (kGrid == Grid::kAsymmetric) zero_point[g] = found.zero_point;
  }
}

}  // namespace

template <class T>
void data_scale_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w, T* scale,
                    T* zero_point) {
  const int64_t groups = extent.num_columns / grid.group_size;
  for_grid(grid.kind, [&]<Grid kGrid>() {
    run_widest<scale_loop<kGrid, T>>(grid, row_begin * groups, row_end * groups, w, scale, zero_point);
  });
}

template void data_scale_cpu<float>(const FakeQuantGrid&, Extent, int64_t, int64_t, const float*, float*, float*);
template void data_scale_cpu<double>(const FakeQuantGrid&, Extent, int64_t, int64_t, const double*, double*, double*);

}  // namespace satin::kernels
