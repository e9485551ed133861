// The packed kernel of a GPU: packed_decode_cuda.cpp with a toolkit, no_cuda.cpp without.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/packed_weight.h"

namespace satin::ops {

/// 90 for sm_90.
int compute_capability(at::Device device);
/// x [M, K] contiguous, bias [N] or undefined -> [M, N].
at::Tensor packed_decode(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias);

}  // namespace satin::ops
