// AWQ directories ("gemm"), both ways: what a file holds, and reading them (the writer is behind format.h).
//
// Per linear of K inputs and N outputs, 4 bits, group g (G = K / g; a scale a row: G = 1), W = s (q - z):
//   qweight  int32 [K, N / 8]   codes q, eight outputs a word: its i-th nibble from below is output
//                               8 c + (0, 2, 4, 6, 1, 3, 5, 7)[i]
//   qzeros   int32 [G, N / 8]   zero points z in the same order, not minus one
//   scales   fp16 [G, N]
//   bias     optional, [N]
#pragma once
#include "export/shipped_model.h"
#include "io/safetensors.h"

namespace satin::exporting {

/// [R, N], each below 16 and N a multiple of 8 -> int32 [R, N / 8] in AWQ's order.
at::Tensor pack_awq(const at::Tensor& codes);
/// The inverse: int32 [R, W] -> uint8 [R, 8 W].
at::Tensor unpack_awq(const at::Tensor& words);

/// Adds every tensor of the directory to model.tensors. `config` is quantization_config. Weights dequantize to
/// model.dtype, which must be bfloat16 or float16. Throws UserError for another version than gemm, other bits, and for
/// tensors that do not fit the configuration.
void read_awq(const Files& files, const nlohmann::json& config, ShippedModel& model);

}  // namespace satin::exporting
