// Reading compressed-tensors "pack-quantized" directories (its writer is behind format.h).
#pragma once
#include "export/shipped_model.h"
#include "io/safetensors.h"

namespace satin::exporting {

/// Adds every tensor of the directory to model.tensors. `config` is quantization_config. Throws UserError for another
/// format than pack-quantized, activation quantization, activation order, and for tensors that do not fit their scheme.
void read_compressed_tensors(const Files& files, const nlohmann::json& config, ShippedModel& model);

}  // namespace satin::exporting
