// y = x W^T + bias + residual with packed low-bit W: a few rows of x (decode).
//
// Shapes    x [M, K], y and residual [M, N], bias [N], W packed as packed_weight.h says.
// Dtypes    x, y, bias and residual alike: half | bfloat16 (CUDA); float (CPU). Scales half | bfloat16, zeros bytes.
// Contract  y = round(sum_groups scale * (sum_k level x) + bias + residual): levels are exact in both 16-bit types, sums
//           and scales are fp32. The weight that training multiplies with is scale * level rounded to a 16-bit type
//           (kernels/fake_quant.h); this is the one before that rounding. The order of sums is fixed: the same bits
//           every time.
// Errors    std::invalid_argument for a bad shape, std::runtime_error for CUDA.
#pragma once
#include "kernels/packed_weight.h"

struct CUstream_st;  // cudaStream_t

namespace satin::kernels {

enum class Half : int { kBFloat16, kFloat16 };

struct PackedMatrix {
  PackedShape shape;
  const uint32_t* words;
  const void* scales;    ///< pairs of `scale_dtype`
  const uint8_t* zeros;  ///< pairs, or null: `zero` everywhere
  Half scale_dtype;
  int step;   ///< 1 or 2 (1 and 2 bits)
  int zero;   ///< where zeros is null
};

inline constexpr int kMostDecodeRows = 16;

struct DecodeArgs {
  PackedMatrix w;
  Half dtype;
  int num_rows;  ///< M, 1 .. kMostDecodeRows
  const void* x;
  void* y;
  const void* bias;      ///< or null
  const void* residual;  ///< or null
};
/// Needs sm_90, and x's rows a multiple of 16 bytes.
void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream);

}  // namespace satin::kernels
