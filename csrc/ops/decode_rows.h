// y = f(x) W^T + bias + residual of a few rows with a packed weight: with the norm before it and the gate or the sum
// after it, one launch where the packed kernel of a GPU takes it. For inference.
//
// Shapes   M rows, W [N, K]. x [M, K]; y and residual [M, N], or y [M, N / 2] of a gate.
// Dtypes   x in `dtype`, float | bfloat16 | half | double; of a norm the residual stream, float (double with double).
//          y likewise where `wide`, else in dtype.
// Errors   InternalError for shapes, dtypes or devices that do not agree.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/packed_weight.h"

namespace satin::ops {

struct DecodeRows {
  const PackedWeight& weight;
  at::ScalarType dtype;
  at::Tensor x;
  at::Tensor norm_weight = {};  ///< [K], or undefined: x is multiplied as it is. Float, or double with double
  double norm_eps = 0;
  at::Tensor bias = {};      ///< [N] in dtype, or undefined
  bool gated = false;        ///< W is a gate above an up: y = silu(gate) * up
  bool wide = false;         ///< y leaves as the sums are; not of a gate
  at::Tensor residual = {};  ///< as y, or undefined; with `wide`
};
/// Whether a packed kernel of a GPU takes the product and what follows it: in fp32 between them, and where `wide` to
/// the end.
bool has_decode_kernel(const DecodeRows& call);
/// The fallback uses rms_norm, packed_linear and swiglu, each rounded to dtype: the same but for rounding.
at::Tensor decode_rows(const DecodeRows& call);

}  // namespace satin::ops
