// Per group, the scale (and zero point) among a ladder of clip ratios whose fake quantization is nearest in squared
// error, weighted by how much each input column matters.
//
// error    sum_k importance_k (weight_k - w_k)^2 over the group's columns k. importance [K], shared by all rows: for
//          inputs x of the layer, mean x_k^2 makes this the output's squared error if columns are uncorrelated. Null:
//          all one. A group whose importances hold nothing above 0 takes all one.
// ladder   asymmetric: min and max (of the weights and 0) times r = 1, .98, ... .30; scale = stored((max - min) /
//          (2^b - 1)), zero = clamp(round(-min / scale), 0, 2^b - 1). Others: r = 1.2, 1.18, ... .20 times max|w|,
//          divided by the highest level 2^(b-1) - 1 for integer grids. Of equal errors the larger ratio wins.
//          Importance does not change the ladder.
// Shapes and dtypes as fake_quant.h; scale and zero_point are written. importance is finite and not negative, in the
// arithmetic's dtype (that of scale). The weight is not rounded to the dequantised format. A group with NaN or infinity
// has a NaN scale. The scale that comes out is the one the forward uses (rounded to storage), as the learned
// parameter's start. CPU and CUDA have the same candidates, bit for bit, and the same levels, but sum in another order:
// of candidates whose errors are equal to rounding they may choose different ones.
// Source   importance: the diagonal of the layer's Hessian, whose whole Frantar et al. 2023 (GPTQ) use.
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

/// CPU, one thread: rows [row_begin, row_end). zero_point is written for asymmetric grids only.
template <class T>
void clip_search_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w,
                     const T* importance, T* scale, T* zero_point);

/// CUDA: asynchronous on `stream`, deterministic.
void clip_search_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* importance,
                      void* scale, void* zero_point, CUstream_st* stream);

}  // namespace satin::kernels
