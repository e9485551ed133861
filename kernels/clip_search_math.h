// The candidates of a group and the choice among them, shared by CPU and CUDA. See clip_search.h.
#pragma once
#include "kernels/clip_search.h"
#include "kernels/data_scale_math.h"

namespace satin::kernels {

/// The ladder is r = i / kClipSteps, i from first down to last.
inline constexpr int kClipSteps = 50;
struct ClipLadder {
  int first, last;
};
SATIN_INLINE constexpr ClipLadder clip_ladder(Grid kind) {
  return kind == Grid::kAsymmetric ? ClipLadder{50, 15} : ClipLadder{60, 10};
}

/// Smallest and largest weight of a group (and 0), whatever the grid; `sum` is NaN when a weight is not finite.
template <class T>
using GroupExtremes = GroupStatistics<Grid::kSymmetric, T>;

/// The group's constants at ratio step / kClipSteps.
template <Grid kGrid, class T>
SATIN_INLINE Group<kGrid, T> clip_candidate(const FakeQuantGrid& grid, const GroupExtremes<T>& w, int step) {
  const T ratio = T(step) / T(kClipSteps);
  if constexpr (kGrid == Grid::kAsymmetric) {
    const T top = T((1 << grid.bits) - 1);
    const T scale = stored_scale<kGrid, T>(grid.scale_rounding, (w.high * ratio - w.low * ratio) / top);
    return {grid, scale + w.sum, round_half_even(clamp(-(w.low * ratio) / scale, T(0), top))};
  } else {
    const T highest = kGrid == Grid::kSymmetric ? T((1 << (grid.bits - 1)) - 1) : T(1);
    const T largest = -w.low > w.high ? -w.low : w.high;
    return {grid, largest * ratio / highest + w.sum, T(0)};
  }
}

/// A weight's part of the error. In this order a weight of no importance adds 0 where the square alone overflows.
template <class T>
SATIN_INLINE T clip_error(T importance, T value, T w) {
  const T error = value - w;
  return importance * error * error;
}

/// The candidate of least error so far; of equal errors the first.
template <Grid kGrid, class T>
struct BestClip {
  T error, scale, zero_point;

  SATIN_INLINE void take(bool first, T other, const Group<kGrid, T>& group) {
    if (!first && !(other < error)) return;
    error = other;
    scale = group.a;
    zero_point = group.zero;
  }
};

}  // namespace satin::kernels
