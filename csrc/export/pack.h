// Bit packing shared by compressed-tensors (>= 0.17) and GPTQ.
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::exporting {

/// codes uint8 [R, C], each below 2^bits -> int32 [R, ceil(C * bits / 32)].
/// Code i of every 32 starts at bit i * bits of `bits` little-endian 32-bit words: one dense bitstream a row, zero
/// padded.
at::Tensor pack_bits(const at::Tensor& codes, int bits);
/// The inverse: int32 [R, W] -> uint8 [R, num_columns].
at::Tensor unpack_bits(const at::Tensor& words, int bits, int64_t num_columns);

}  // namespace satin::exporting
