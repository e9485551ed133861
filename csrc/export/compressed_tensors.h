// compressed-tensors directories, both ways: what a file holds, and reading them (the writer is behind format.h).
//
// "pack-quantized", as of the library's version 0.17. Per quantized linear, [N out, K in], group g:
//   weight_packed      int32 [N, ceil(K bits / 32)]   code = level + 2^(bits-1), packed as in pack.h
//   weight_scale       model dtype [N, K / g]          the stored scale
//   weight_zero_point  int32 [ceil(N bits / 32), K / g], packed along N, same offset (asymmetric only)
//   weight_shape       int64 [2]
// "int-quantized" (and "naive-quantized" integers):
//   weight             int8 [N, K]                     the level
//   weight_scale       model dtype [N, K / g]
//   weight_zero_point  int8 [N, K / g]                 (asymmetric only)
// A client computes (code - zero point) * scale in the model's dtype: one rounding of an exact product, our contract.
// int-quantized is written for 8-bit weights per row with int8 activations, pack-quantized for all else; several
// schemes in a model are several config_groups, and both layouts in one "mixed-precision".
//
// Activations: clients make a scale a token from its largest value. Satin (and vLLM) divide that by 127 and clamp to
// -127 ... 127; transformers divides by 127.5 and clamps to -128 ... 127, so that its outputs differ by as much.
#pragma once
#include "export/shipped_model.h"
#include "io/safetensors.h"

namespace satin::exporting {

/// Adds every tensor of the directory to model.tensors. `config` is quantization_config. Throws UserError for another
/// layout, activations other than 8 bits with a scale a token, activation order that moves columns ("group"), quantized
/// outputs and KV caches, transforms, sparsity, and for tensors that do not fit their scheme.
void read_compressed_tensors(const Files& files, const nlohmann::json& config, ShippedModel& model);

}  // namespace satin::exporting
