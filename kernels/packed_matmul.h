// y = x W^T + bias + residual with packed low-bit W: a few rows of x (decode).
//
// Shapes    x [M, K], y and residual [M, N], bias [N], W packed as packed_weight.h says.
// Dtypes    x, y, bias and residual alike: half | bfloat16 (CUDA); float (CPU). Scales half | bfloat16, zeros bytes.
// Contract  y = round(sum_groups scale * (sum_k level x) + bias + residual), sums over groups in fp32. CUDA's
//           kernel for few rows may take in what lies before and after it (DecodeArgs), unrounded between: a layer is
//           then few launches. The weight that
//           training multiplies with is scale * level rounded to a 16-bit type (kernels/fake_quant.h); this is the one
//           before that rounding. CUDA: up to four rows of x are rounded to 16-bit integers with a scale for 128
//           columns, by half a unit of 1 / 32,639 of the largest of them; products and sums in a group are then exact.
//           One row times codes of b <= 3 bits may have, for bit i of a code, 2^i x rounded by half a unit of
//           2^(b - 1) / 21,845 of the largest instead, and x that a group's zero point multiplies by half a
//           unit of 2^-18 of it.
//           The order of sums is fixed: the same bits every time.
// Errors    std::invalid_argument for a bad shape, std::runtime_error for CUDA.
#pragma once
#include "kernels/decode_tile.h"
#include "kernels/fake_quant.h"
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

inline constexpr int kMostDecodeRows = 16;

struct DecodeArgs {
  PackedMatrix w;
  Half dtype;
  int num_rows;  ///< M, 1 .. kMostDecodeRows (in float16, and with a norm: kMostHalfRows)
  const void* x;
  void* y;
  const void* bias;      ///< or null
  const void* residual;  ///< or null
  /// Or null. [K]: x is s / sqrt(mean(s^2) + eps) * norm_weight of the residual stream s [M, K] float (rms_norm.h).
  const float* norm_weight = nullptr;
  float norm_eps = 0;
  /// W is a gate above an up, of whole bricks of rows: y = silu(gate) * up, [M, N / 2] (swiglu.h); no residual.
  bool gated = false;
  bool wide = false;  ///< y and residual are float; not of a gated one
  DecodeTile tile = {};
};
/// Throws std::invalid_argument.
void check(const DecodeArgs& args);
/// Needs sm_90; x begins at a multiple of 16 bytes and K is a multiple of 8; groups are powers of two or a whole row.
/// Asynchronous on `stream`; begins before the kernel before it has ended, and waits for its results.
void packed_decode_cuda(const DecodeArgs& args, CUstream_st* stream);

/// Rows of the weight as training multiplies with them, round(scale * level), on any device.
struct DequantizeArgs {
  PackedMatrix w;
  Rounding rounding;
  int64_t first_row, num_rows;
  const int64_t* indices;     ///< [num_rows] rows instead of first_row ...; or null. A row outside the matrix: zeros
  bool wide;                  ///< out is float, else of the 16 bits that out_rounding names
  Rounding out_rounding;      ///< the second; float may have none
  void* out;                  ///< [num_rows, K]
  int64_t* counts = nullptr;  ///< [num_rows], each one more afterwards; or null
};
/// Asynchronous on `stream`; begins before the kernel before it has ended, and waits for its results. The next one
/// begins when out and counts are written.
void packed_dequantize_cuda(const DequantizeArgs& args, CUstream_st* stream);

// CPU, one thread: y's columns of the brick rows [begin, end), so that callers split them over their own threads. Any
// M; a row's result has the same bits on every instruction set and whatever other rows are beside it.

template <class T>
struct PackedMatmulArgs {
  PackedMatrix w;
  int64_t num_rows;  ///< M
  const T* x;
  T* y;
  const T* bias;      ///< or null
  const T* residual;  ///< or null
};
/// With AVX-512 (vectors of 16 floats), AVX2 (8) or neither (4), as the machine has them and `most_floats` allows.
void packed_matmul_cpu(const PackedMatmulArgs<float>& args, int64_t brick_row_begin, int64_t brick_row_end,
                       int most_floats = 16);
/// The contract in plain loops. T: float, double.
template <class T>
void packed_matmul_reference(const PackedMatmulArgs<T>& args, int64_t brick_row_begin, int64_t brick_row_end);

/// round(scale * level) of the brick rows [begin, end): out [their rows in the matrix, K].
void packed_dequantize_cpu(const PackedMatrix& w, Rounding rounding, int64_t brick_row_begin, int64_t brick_row_end,
                           float* out);

}  // namespace satin::kernels
