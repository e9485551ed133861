// GPTQ directories, both ways: what a file holds, and reading them (the writer is behind format.h).
//
// Per linear of K inputs and N outputs, b bits, group g (G = K / g; a scale a row: G = 1), W = s (q - z):
//   qweight  int32 [K b / 32, N]   codes q, packed along K as in pack.h
//   qzeros   int32 [G, N b / 32]   zero points packed along N: z - 1 in "gptq" (version 1), z in "gptq_v2"
//   scales   fp16 [G, N]
//   g_idx    int32 [K]             i / g
//   bias     optional, [N]
#pragma once
#include "export/shipped_model.h"
#include "io/safetensors.h"

namespace satin::exporting {

/// Adds every tensor of the directory to model.tensors. `config` is quantization_config. Versions 1 and 2, 2, 3, 4 and
/// 8 bits; weights dequantize to model.dtype, which must be bfloat16 or float16. Throws UserError for another
/// checkpoint_format, activation order, overrides of single layers, zero points that version 1 cannot say, and for
/// tensors that do not fit the configuration.
void read_gptq(const Files& files, const nlohmann::json& config, ShippedModel& model);

}  // namespace satin::exporting
