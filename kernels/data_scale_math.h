// From a group's statistics to its scale, shared by CPU and CUDA. See data_scale.h.
#pragma once
#include <type_traits>

#include "kernels/data_scale.h"
#include "kernels/fake_quant_math.h"

namespace satin::kernels {

/// What a group's scale is made of: smallest and largest weight (and 0), or the sum of absolute values in fp64, which
/// is the same number in any order but for one in a hundred million. `sum` is NaN when a weight is not finite.
template <Grid kGrid, class T>
struct GroupStatistics {
  static constexpr bool kMean = kHasSigns<kGrid> || kGrid == Grid::kBitNet;
  T low = 0, high = 0;
  std::conditional_t<kMean, double, T> sum = 0;

  SATIN_INLINE void add(T w) {
    if constexpr (kMean) {
      sum += (w < 0 ? -w : w) + (w - w);
    } else {
      low = w < low ? w : low;
      high = w > high ? w : high;
      sum += w - w;
    }
  }
  SATIN_INLINE void add(const GroupStatistics& other) {
    low = other.low < low ? other.low : low;
    high = other.high > high ? other.high : high;
    sum += other.sum;
  }
};

template <class T>
struct DataScale {
  T scale, zero_point;
};

template <Grid kGrid, class T>
SATIN_INLINE DataScale<T> data_scale(const FakeQuantGrid& grid, const GroupStatistics<kGrid, T>& group,
                                     int64_t group_size) {
  if constexpr (GroupStatistics<kGrid, T>::kMean)
    return {static_cast<T>(group.sum / static_cast<double>(group_size)), T(0)};
  const T top = T((1 << grid.bits) - 1), nan = static_cast<T>(group.sum);  // 0, or NaN
  const T largest = (-group.low > group.high ? -group.low : group.high) + nan;
  if constexpr (kGrid == Grid::kSymmetric) return {largest / (top / 2), T(0)};
  if constexpr (kGrid == Grid::kAsymmetric) {
    const T scale = stored_scale<kGrid, T>(grid.scale_rounding, (group.high - group.low) / top + nan);
    return {scale, round_half_even(clamp(-group.low / scale, T(0), top))};
  }
  return {largest, T(0)};
}

}  // namespace satin::kernels
