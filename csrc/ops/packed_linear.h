// y = x W^T + b with a packed low-bit weight: by the packed kernels, or dequantized piece by piece.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "ops/packed_weight.h"

namespace satin::ops {

enum class PackedPath {
  kAuto,
  kPacked,    ///< codes are read by the product itself
  kFallback,  ///< pieces of the weight are dequantized into the compute dtype, then multiplied by PyTorch
};

/// What the choice depends on.
struct PackedProblem {
  bool is_cuda = false;
  int compute_capability = 0;  ///< 90 for sm_90; CUDA
  int64_t num_rows = 1;        ///< of x
  int64_t num_columns = 0;     ///< K
  int64_t num_groups = 1, group_size = 64;
  int bits = 4;
  at::ScalarType dtype = at::kFloat;                                          ///< of x
  at::ScalarType scale_dtype = at::kBFloat16, dequant_dtype = at::kBFloat16;  ///< of the weight
};
/// Of x [M, K] multiplied in `dtype`.
PackedProblem problem_of(const at::Tensor& x, const PackedWeight& weight, at::ScalarType dtype);

struct PackedChoice {
  PackedPath path;
  std::string reason;  ///< for people
};
/// Never kAuto. CPU: float, bfloat16 or half, and few enough rows to be faster than PyTorch's product. CUDA: sm_90,
/// bfloat16 or half, rows of a multiple of 16 bytes, groups of a power of two or whole rows; more than 16 rows: all of
/// bfloat16, scales and the dequantized weight too, and with 8 bits few enough to be faster. kPacked where no packed
/// kernel computes it is an InternalError; kFallback always works.
PackedChoice choose_packed_path(const PackedProblem& problem, PackedPath wanted = PackedPath::kAuto);

/// x [..., K] of a floating dtype, bias [N] in x's dtype or none -> [..., N] in x's dtype.
/// The packed path multiplies with scale * level as it is, in fp32 sums; the fallback, and a GPU's packed kernel for
/// more than 16 rows, with the weight's own values, which are rounded to dequant_dtype (2^-9 or 2^-12 of a weight at
/// most apart). On the CPU a row's result of the packed path has the same bits in every batch. What was chosen is
/// logged once for each kind of reason.
at::Tensor packed_linear(const at::Tensor& x, const PackedWeight& weight, const std::optional<at::Tensor>& bias = {},
                         PackedPath wanted = PackedPath::kAuto);

}  // namespace satin::ops
