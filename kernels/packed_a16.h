// y = x W^T + bias with bfloat16 x and packed low-bit W: many rows of x (prefill, evaluation).
//
// Shapes    x [M, K], y [M, N], bias [N], W [N, K] as packed_weight.h says.
// Dtypes    x, y, bias and the scales: bfloat16.
// Contract  y = round(sum_k x bf16(scale * level) + bias): the weight is what packed_dequantize gives in bfloat16, bit
//           for bit; products and sums in fp32 as the tensor cores make them. The same bits every time.
// Errors    std::invalid_argument for a bad shape, std::runtime_error for CUDA.
#pragma once
#include "kernels/packed_matmul.h"

namespace satin::kernels {

/// Throws std::invalid_argument.
void check_a16(const PackedMatrix& w, int64_t num_rows);

/// Rows of W and of x that a block multiplies at once.
struct A16Tile {
  int rows = 0, tokens = 0;  ///< 0: by rule
  int splits = 1;            ///< blocks that share its columns: 1 or 2, at most ceil(K / 128)
  bool operator==(const A16Tile&) const = default;
};
inline constexpr A16Tile kA16Tiles[] = {{128, 256}, {128, 128}, {128, 64}, {64, 64}};

struct PackedA16Args {
  PackedMatrix w;
  int64_t num_rows;  ///< M
  const void* x;     ///< begins at a multiple of 16 bytes
  void* y;
  const void* bias;  ///< or null
  A16Tile tile = {};
};
/// Needs sm_90; K is a multiple of 8, groups are powers of two or a whole row. Asynchronous on `stream`.
void packed_a16_cuda(const PackedA16Args& args, CUstream_st* stream);

}  // namespace satin::kernels
