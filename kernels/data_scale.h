// Scales and zero points read off the weights of each group, for methods that compute them anew at every step and as
// the start of others.
//
//   symmetric        scale = max|w| / ((2^b - 1) / 2)
//   asymmetric       scale = stored((max - min) / (2^b - 1)), zero = clamp(round(-min / scale), 0, 2^b - 1);
//                    min and max include 0
//   SEQ, ternary     scale = max|w|
//   binary, BitNet   scale = mean|w|, summed in fp64 so that every device gives the same number
// A group with NaN or infinity has a NaN scale. Shapes and dtypes as fake_quant.h; scale and zero_point are written.
// Source   quantizers' definitions: Liu et al. 2025 (ParetoQ), Ma et al. 2024 (BitNet b1.58).
#pragma once
#include "kernels/fake_quant.h"

namespace satin::kernels {

/// CPU, one thread: rows [row_begin, row_end). zero_point is written for asymmetric grids only. T: float, double.
template <class T>
void data_scale_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w, T* scale,
                    T* zero_point);

/// One matrix of a batch; group_size replaces the grid's.
struct DataScaleTask {
  Extent extent;
  int64_t group_size;
  const void* w;
  void* scale;
  void* zero_point;
};
/// CUDA: asynchronous on `stream`, deterministic.
void data_scale_cuda(const FakeQuantGrid& grid, std::span<const DataScaleTask> tasks, Dtype w_dtype,
                     CUstream_st* stream);

}  // namespace satin::kernels
