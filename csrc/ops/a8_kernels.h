// The kernels of a GPU for many rows, behind a8_linear, packed_linear and pack_codes: a8_cuda.cpp with a toolkit,
// no_cuda.cpp without.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/packed_a16.h"
#include "ops/packed_weight.h"

namespace satin::ops {

/// A8 codes (kernels/packed_a8.h) of x [M, K].
struct A8Codes {
  at::Tensor codes;   ///< [M, a8_row_bytes(K)] uint8
  at::Tensor scales;  ///< [M] float
  at::Tensor values;  ///< [M, K] in x's dtype: what act_quant gives; undefined where it was not asked for
};
A8Codes a8_codes(const at::Tensor& x, bool with_values);
/// bias [N] or undefined -> [M, N] in `dtype`.
at::Tensor packed_a8(const A8Codes& x, const PackedWeight& weight, const at::Tensor& bias, at::ScalarType dtype);
/// kernels/packed_a16.h: x [M, K] bfloat16 contiguous, bias [N] or undefined -> [M, N].
at::Tensor packed_a16(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias,
                      kernels::A16Tile tile = {});
/// Fills words, scales and zeros, of the right sizes, from codes [N, K] uint8, scale [N, G] float, zero [N, G] int32.
void pack_on_cuda(PackedWeight& to, const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero);

}  // namespace satin::ops
