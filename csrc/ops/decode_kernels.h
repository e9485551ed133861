// What decoding asks of a GPU: decode_cuda.cpp with a toolkit, no_cuda.cpp without.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/cached_attention.h"
#include "ops/decode_rows.h"
#include "ops/packed_weight.h"

namespace satin::ops {

/// x [M, K] contiguous, bias [N] or undefined -> [M, N]. tile: the one to use; else the device's (decode_tiles.h).
at::Tensor packed_decode(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& bias,
                         kernels::DecodeTile tile = {});
/// decode_rows.h where the kernel takes it (as its DecodeArgs say); tensors contiguous.
at::Tensor packed_decode(const DecodeRows& call);
/// out [n, K] float, bfloat16 or half of rows first ..., or of those that `indices` [n] name.
/// Numbers of a float `out` are rounded to `dtype` too; counts [n] int64, if any: each one more afterwards.
void packed_dequantize(const PackedWeight& weight, int64_t first, const at::Tensor& indices, at::Tensor out,
                       at::ScalarType dtype, at::Tensor counts = {});
/// most_likely (step_ends.h) of one kernel.
at::Tensor most_likely_on_cuda(const at::Tensor& logits);
/// cached_attention.h.
void cached_attention_cuda(const kernels::CachedAttention& call, at::ScalarType dtype, at::Device device);

}  // namespace satin::ops
