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
/// Errors: UserError; also when the tokenizer has more ids than the model.
OpenModel open_model(const std::string& directory, const std::string& device, const std::string& compute_dtype,
                     const std::string& kv_cache = "");

}  // namespace satin::cli
