// y = x W^T + bias with x as int8 codes (act_quant.h) and packed low-bit W: many rows of x (training, prefill).
//
// Shapes    x codes [M, 128 ceil(K / 128)] in the order below, x scales [M], y [M, N], bias [N], W [N, K] as
//           packed_weight.h says, of 1 to 4 bits, levels from -127 to 127.
// Dtypes    y and bias alike: bfloat16 | half (CUDA); float or double (CPU). x scales float (CPU: as y).
// Order     of codes in each 32 columns: column 8 q + 4 f + {0, 2, 1, 3}[j] lies at 16 f + 4 q + j (q, j = 0 .. 3,
//           f = 0, 1), as a word of the packed layout holds its four codes. What fills K up is 0.
// Contract  y = round(x_scale * sum_chunks scale * (sum_k level x) + bias). A chunk is a group, or 128 columns of a
//           longer one; of one group a row the whole row.
//           A chunk's sum is exact; chunks are added in order by fp32 fused multiply-adds, then one product and one
//           sum. The CPU in float gives the same bits.
//           The same bits every time.
// Errors    std::invalid_argument for a bad shape, std::runtime_error for CUDA.
#pragma once
#include "kernels/act_quant.h"
#include "kernels/fake_quant_math.h"
#include "kernels/packed_matmul.h"

namespace satin::kernels {

/// Bytes of a row of x codes.
SATIN_INLINE int64_t a8_row_bytes(int64_t num_columns) {
  return (num_columns + kBrickColumns - 1) / kBrickColumns * kBrickColumns;
}
/// Where a column lies in its row.
SATIN_INLINE int64_t a8_place(int64_t column) {
  constexpr int kInFour[4] = {0, 2, 1, 3};
  const int64_t in_segment = column % 32;
  return column - in_segment + 16 * (in_segment / 4 % 2) + 4 * (in_segment / 8) + kInFour[column % 4];
}

/// Throws std::invalid_argument.
void check_a8(const PackedMatrix& w, int64_t num_rows);

struct PackedA8Args {
  PackedMatrix w;
  int64_t num_rows;      ///< M
  const uint8_t* codes;  ///< begins at a multiple of 16 bytes
  const float* scales;
  Half dtype;
  void* y;
  const void* bias;  ///< or null
};
/// Needs sm_90; groups are powers of two from 64 on, or a whole row. Asynchronous on `stream`.
void packed_a8_cuda(const PackedA8Args& args, CUstream_st* stream);

/// act_quant_codes (kInt8) of x [M, K] (bfloat16, beginning at a multiple of 16 bytes, K a multiple of 8) in the
/// order above; with `values` not null also act_quant's values of the same x, [M, K].
void a8_codes_cuda(Extent extent, Dtype x_dtype, const void* x, uint8_t* codes, float* scales, void* values,
                   CUstream_st* stream);

template <class T>
struct PackedA8Reference {
  PackedMatrix w;
  int64_t num_rows;
  const uint8_t* codes;
  const T* scales;
  T* y;
  const T* bias;  ///< or null
};
/// The contract in plain loops, one thread: y's columns of the brick rows [begin, end).
template <class T>
void packed_a8_reference(const PackedA8Reference<T>& args, int64_t brick_row_begin, int64_t brick_row_end);

}  // namespace satin::kernels
