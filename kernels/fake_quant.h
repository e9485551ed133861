// Fake quantization of weight matrices: forward, codes and backward, group by group along the input dimension.
//
// Shapes   w, out, grad, codes [N, K] row-major; scale, zero_point [N, G] with G = K / group_size; a group is
// contiguous. Dtypes   CPU: one scalar T (float or double) for all. CUDA: w and grad_w float | bfloat16 | double, out
// and grad
//          float | bfloat16 (double with a double w); scale and zero_point float (double with a double w).
// Contract (the same numbers in training, export and reload, on every device; fp32 arithmetic, fp64 for double)
//   stored = round_scale(max(scale, floor) * unit)         unit: SEQ 1/4, ternary 2/3, others 1
//   weight = round_dequant(stored * level)                 level: an integer, see Grid
//   level  = the grid's rounding of w / a, a = stored / unit
//   `stored` is what a file holds. a is exact in fp32 for a 16-bit `stored` (4 and 3/2 are short multipliers), so the
//   levels of SEQ are exactly {-3,-1,1,3}/4 a and those of ternary exactly {-2,0,2}/3 a. (Rounding a itself instead
//   would give ternary levels that no 16-bit file holds; with SEQ both are the same number.)
//   stored * level is exact in fp32 for a 16-bit `stored`, so round_dequant is the only rounding and products can be
//   taken in any order. A zero weight is +0. Division is IEEE w / a (not a multiplication by 1 / a), rounding is half
//   to even. floor: 1e-5, or 2^-14 (the least normal number) where scales are stored as fp16. A finite scale above the
//   storage format's largest number saturates there. NaN in w, scale or zero_point gives NaN weights; NaN codes are 0.
// Gradients (straight through rounding, storage rounding and floor), per group, u = w / a, q = level * unit
//   symmetric, binary: inside = u in [lo, hi] (binary: [-1, 1]); SEQ, ternary: |u| < .99; BitNet: everywhere
//   asymmetric:        inside = round(u) + zero in [0, 2^bits - 1]  (of the rounded value)
//   grad_w = inside ? grad : 0;  grad_scale = m * sum grad * (inside ? q - u : q); binary, OneBit: m * sum grad * q
//   OneBit:            grad_w = grad * stored * (1.001 - tanh(w)^2)  (stored * sign(w), with a gradient for the sign)
//   grad_zero_point = m * sum grad * (inside ? 0 : -a)
//   m = 1 / sqrt(group_size * Qp), Qp = 2^(bits-1) - 1 for integer grids (1 at 2 bits) and 1 for others
// Beside ParetoQ's own code and other plain implementations: they keep round(a) and multiply by 2/3 in fp32, we store
// round(2/3 a), so ternary thresholds and levels may differ in the last storage bit; ParetoQ's code takes 1 for the
// derivative of ternary's end level, which is 2/3; fp16 scales have a higher floor. Other grids give the same numbers.
// Source   Esser et al. 2020 (LSQ) eq. 1-3; Liu et al. 2025 (ParetoQ) eq. 5-7, elastic binarisation; Ma et al. 2024
//          (BitNet b1.58) eq. 1-3; Xu et al. 2024 (OneBit) eq. 2 and its released gradient of the sign.
// Errors   std::invalid_argument for a bad grid or dtype, std::runtime_error for CUDA.
#pragma once
#include <cstdint>
#include <span>

struct CUstream_st;  // cudaStream_t

namespace satin::kernels {

enum class Grid : int {
  kSymmetric,   ///< level = clamp(round(u), -2^(b-1), 2^(b-1)-1); code = level + 2^(b-1)
  kAsymmetric,  ///< zero = clamp(round(zero_point), 0, 2^b-1); code = clamp(round(u) + zero, 0, 2^b-1); level = code -
                ///< zero
  kSeq,         ///< 2 bits: code = round(2 clip(u, +-.99) - .5) + 2; level = 2 code - 3
  kTernary,     ///< code = round(1.5 clip(u, +-.99)) + 1; level = code - 1
  kBinary,      ///< 1 bit: code = u >= 0; level = 2 code - 1
  kBitNet,      ///< ternary around 0: code = round(clip(u, +-1)) + 1; level = code - 1
  kOneBit,      ///< the binary grid with another gradient
};

inline constexpr int kNumGrids = 7;
/// One bit: the level is the weight's sign.
inline constexpr bool has_signs(Grid kind) { return kind == Grid::kBinary || kind == Grid::kOneBit; }
template <Grid kGrid>
inline constexpr bool kHasSigns = has_signs(kGrid);

/// A storage format; kNone rounds nothing.
enum class Rounding : int { kNone, kBFloat16, kFloat16 };

struct FakeQuantGrid {
  Grid kind = Grid::kSymmetric;
  int bits = 2;             ///< 2..8; SEQ, ternary and BitNet: 2; binary and OneBit: 1
  int64_t group_size = 64;  ///< divides K
  Rounding scale_rounding = Rounding::kBFloat16;
  Rounding dequant_rounding = Rounding::kBFloat16;
};

/// A matrix and how many weights share a scale: N x K, K a multiple of the grid's group_size.
struct Extent {
  int64_t num_rows, num_columns;
};

/// Throws std::invalid_argument naming the field.
void check(const FakeQuantGrid& grid, Extent extent);
/// The gradient multiplier m.
double gradient_multiplier(const FakeQuantGrid& grid);

// CPU, one thread: rows [row_begin, row_end) of the full arrays, so that callers split rows over their own threads.
// zero_point and grad_zero_point are read and written only by asymmetric grids. T: float, double.

template <class T>
void fake_quant_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w,
                    const T* scale, const T* zero_point, T* out);

/// codes [N, K] in 0 .. 2^bits - 1; stored [N, G]; zero [N, G]: the integer zero with level = step * code - zero, where
/// step is 2 for SEQ (zero 3), binary and OneBit (zero 1), and 1 otherwise (symmetric 2^(b-1), ternary and BitNet 1).
template <class T>
void fake_quant_codes_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end, const T* w,
                          const T* scale, const T* zero_point, uint8_t* codes, T* stored, int32_t* zero);

template <class T>
void fake_quant_backward_cpu(const FakeQuantGrid& grid, Extent extent, int64_t row_begin, int64_t row_end,
                             const T* grad, const T* w, const T* scale, const T* zero_point, T* grad_w, T* grad_scale,
                             T* grad_zero_point);

// CUDA: asynchronous on `stream`; deterministic (no atomics). Pointers are device memory. A batch of matrices takes one
// launch for up to 256 of them: a small model has hundreds, and their launches would cost more than their bytes.

enum class Dtype { kFloat, kBFloat16, kDouble };

/// One matrix of a batch. group_size replaces the grid's, so that scales a row fit matrices of every width.
struct FakeQuantTask {
  Extent extent;
  int64_t group_size;
  const void* w;
  const void* scale;
  const void* zero_point;
  void* out;
};
void fake_quant_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantTask> tasks, Dtype w_dtype, Dtype out_dtype,
                     CUstream_st* stream);

void fake_quant_codes_cuda(const FakeQuantGrid& grid, Extent extent, Dtype w_dtype, const void* w, const void* scale,
                           const void* zero_point, uint8_t* codes, void* stored, int32_t* zero, CUstream_st* stream);

/// One matrix of a batch; grad_w has w's dtype.
struct FakeQuantBackwardTask {
  Extent extent;
  int64_t group_size;
  const void* grad;
  const void* w;
  const void* scale;
  const void* zero_point;
  void* grad_w;
  void* grad_scale;
  void* grad_zero_point;
};
void fake_quant_backward_cuda(const FakeQuantGrid& grid, std::span<const FakeQuantBackwardTask> tasks, Dtype grad_dtype,
                              Dtype w_dtype, CUstream_st* stream);

}  // namespace satin::kernels
