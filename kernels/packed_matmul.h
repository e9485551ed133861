// y = x W^T + bias + residual with packed low-bit W: a few rows of x (decode).
//
// Shapes    x [M, K], y and residual [M, N], bias [N], W packed as packed_weight.h says.
// Dtypes    x, y, bias and residual alike: half | bfloat16 (CUDA); float (CPU). Scales half | bfloat16, zeros bytes.
// Contract  y = round(sum_groups scale * (sum_k level x) + bias + residual), sums over groups in fp32. The weight that
//           training multiplies with is scale * level rounded to a 16-bit type (kernels/fake_quant.h); this is the one
//           before that rounding. CUDA: up to four rows of x are rounded to 16-bit integers with a scale for 128
//           columns, by half a unit of 1 / 32,639 of the largest of them; products and sums in a group are then exact.
//           The order of sums is fixed: the same bits every time.
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
  int step;  ///< 1 or 2 (1 and 2 bits)
  int zero;  ///< where zeros is null
};

inline constexpr int kMostDecodeRows = 16, kMostHalfRows = 4;

struct DecodeArgs {
  PackedMatrix w;
  Half dtype;
  int num_rows;  ///< M, 1 .. kMostDecodeRows (float16: kMostHalfRows)
  const void* x;
  void* y;
  const void* bias;      ///< or null
  const void* residual;  ///< or null
};
/// Throws std::invalid_argument.
void check(const DecodeArgs& args);
/// Needs sm_90; x begins at a multiple of 16 bytes and K is a multiple of 8; groups are powers of two or a whole row.
/// Asynchronous on `stream`; begins before the kernel before it has ended, and waits for its results.
void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream);

}  // namespace satin::kernels
