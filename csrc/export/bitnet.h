// Hugging Face's BitNet directories, both ways: what a file holds, and reading them (the writer is behind format.h).
//
// Per linear of K inputs and N outputs, of levels q in {-1, 0, 1} and one scale a tensor:
//   weight        uint8 [N / 4, K]   q + 1 in 2 bits: bits 2i and up of row r are output i N / 4 + r
//   weight_scale  model dtype [1]
//   bias          optional, [N]
// The input is rounded to 8 bits, a scale a token. Two opposite conventions share these names:
//   linear_class "autobitlinear" (quantization_mode "offline") multiplies by weight_scale: W = q weight_scale
//   linear_class "bitlinear" (the default of a configuration that names none) divides: W = q / weight_scale
// Written is autobitlinear, which holds the trained scale as it is; its inverse would not fit 16 bits. Its clients
// multiply the bias by the scale too, so that layers with biases are refused. Both conventions are read.
// Source: transformers' integrations/bitnet; Ma et al. 2024 (BitNet b1.58).
#pragma once
#include "export/shipped_model.h"

namespace satin::exporting {

/// levels + 1, uint8 [N, K] of 0 ... 2, N a multiple of 4 -> uint8 [N / 4, K].
at::Tensor pack_bitnet(const at::Tensor& codes);
/// The inverse. (Two bits of a stranger's file may also be 3.)
at::Tensor unpack_bitnet(const at::Tensor& bytes);

/// Adds every tensor of the directory to model.tensors. `config` is quantization_config. Weights dequantize to
/// model.dtype, with scales of bitlinear that 16 bits do not hold to float32. Throws UserError for quantization at run
/// time ("online"), norms inside of linears, and for tensors that do not fit.
void read_bitnet(const Files& files, const nlohmann::json& config, ShippedModel& model);

}  // namespace satin::exporting
