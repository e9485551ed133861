// What every command that runs a model opens: weights, tokenizer, decoder.
#pragma once
#include <memory>
#include <string>

#include "export/shipped_model.h"
#include "models/decoder.h"
#include "tokenizer/tokenizer.h"

namespace satin::cli {

struct OpenModel {
  exporting::ShippedModel model;
  tokenizer::Tokenizer tokenizer;
  std::unique_ptr<models::Decoder> decoder;
};

/// `device`: auto, cpu, cuda; `compute_dtype`: auto (bfloat16 on CUDA, float32 on the CPU), float32, bfloat16, float64.
/// `kv_cache`: none, int8 or int4; empty: as the model was trained.
/// `kernel`: dense (weights as matrices of the compute dtype), low-bit (their codes, where they are quantized), or
/// auto: low-bit where there are quantized weights and the device has kernels for them (the CPU; sm_90 with 16-bit
/// computing). Errors: UserError; also when the tokenizer has more ids than the model, and for low-bit without
/// quantized weights.
OpenModel open_model(const std::string& directory, const std::string& device, const std::string& compute_dtype,
                     const std::string& kv_cache = "", const std::string& kernel = "dense");

/// Throws UserError for another name than these three.
void check_kernel(const std::string& kernel);

}  // namespace satin::cli
