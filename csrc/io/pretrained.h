// A Hugging Face model directory -> a decoder with its weights.
#pragma once
#include <filesystem>
#include <memory>

#include "io/safetensors.h"
#include "models/decoder.h"

namespace satin::io {

/// Whether the files hold scales and zero points too: a checkpoint of ours does, a Hugging Face model does not.
enum class Quantizers { kAbsent, kStored };

/// Fills every parameter by name, converting to its dtype (with kAbsent scales and zero points are left alone); of one
/// that is split reads its own rows alone.
/// Strict: every missing, extra, misshapen or non-floating tensor is listed in one UserError. Harmless extras: rotary
/// inv_freq buffers, and a tied model's lm_head.weight if it equals the embedding.
void load_weights(models::Decoder& decoder, const TensorDirectory& tensors,
                  Quantizers quantizers = Quantizers::kAbsent);

/// Reads config.json, builds the decoder with `factory` and loads its weights. A checkpoint of ours (satin.json) is
/// verified and loads with its quantizers' state, which needs a factory of the same schemes. After any other directory
/// a caller with a quantizing factory calls quant::initialise_from_weights.
/// Errors: UserError, also for a directory that is quantized already (config.json's quantization_config).
std::unique_ptr<models::Decoder> load_pretrained(const std::filesystem::path& directory,
                                                 const nn::LinearFactory& factory, const nn::BuildOptions& options);

}  // namespace satin::io
