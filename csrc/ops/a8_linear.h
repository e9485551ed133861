// y = Q(x) W^T + b with Q(x) as int8 codes (ops/act_quant.h) and W as packed codes (kernels/packed_a8.h): the product
// of training with 8-bit activations.
//
// Errors   InternalError for shapes, dtypes or devices that do not agree.
#pragma once
#include <optional>
#include <string>

#include "ops/packed_weight.h"

namespace satin::ops {

/// Why a8_linear has no kernel for it on CUDA, for people; empty: it has one. `dtype`: of x; capability: 90 for sm_90.
std::string reason_against_a8(const kernels::PackedShape& shape, at::ScalarType dtype, int capability);

/// x [..., K], bias [N] in x's dtype or none -> [..., N] in x's dtype: bfloat16 on CUDA, float, double or bfloat16 on
/// the CPU (the contract in plain loops, for tests). `weight` [N, K] in x's dtype is the packed one's values.
/// Differentiable, straight through the rounding of x: grad_x = grad weight, grad_weight = grad^T Q(x).
at::Tensor a8_linear(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& weight,
                     const std::optional<at::Tensor>& bias = {});

}  // namespace satin::ops
