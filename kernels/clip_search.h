// Per group, the scale (and zero point) among a ladder of clip ratios whose fake quantization is nearest in squared
// error.
//
// Shapes and dtypes as fake_quant.h; scale and zero_point are written. The weight is not rounded to the dequantised
// format. Ladder   asymmetric: min and max (of the weights and 0) times r = 1, .98, ... .30; scale = stored((max - min)
// / (2^b - 1)),
//          zero = clamp(round(-min / scale), 0, 2^b - 1). Others: r = 1.2, 1.18, ... .20 times max|w|, divided by the
//          highest level 2^(b-1) - 1 for integer grids. Of equal errors the larger ratio wins.
// The scale that comes out is the one the forward uses (rounded to storage), as the learned parameter's start.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

/// CPU, one thread: rows [row_begin, row_end). zero_point is written for asymmetric grids only.
template <class T>
void clip_search_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w, T* scale,
                     T* zero_point);

/// The ladder is r = i / kClipSteps, i from first down to last.
inline constexpr int kClipSteps = 50;
struct ClipLadder {
  int first, last;
};
inline constexpr ClipLadder clip_ladder(Grid kind) {
  return kind == Grid::kAsymmetric ? ClipLadder{50, 15} : ClipLadder{60, 10};
}

}  // namespace satin::kernels
