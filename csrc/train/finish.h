// What happens when the weights are final: evaluation of the model as shipped, exports, report.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "config/schema.h"
#include "models/decoder.h"
#include "tokenizer/tokenizer.h"
#include "train/run_directory.h"

namespace satin::train {

/// Perplexity of every data.valid text: {"<name>": {"perplexity", "nll", "tokens", "protocol"}}; logs one line each.
nlohmann::json evaluate_valid(const config::Config& config, models::Decoder& decoder,
                              const tokenizer::Tokenizer& tokenizer, const std::string& label);

/// Opens the checkpoint as it is shipped, evaluates it beside the teacher (both in fp32), writes evaluation.json, the
/// exports and report.html.
void finish_run(const config::Config& config, const RunDirectory& directory, const tokenizer::Tokenizer& tokenizer,
                const fs::path& checkpoint, at::Device device, at::ScalarType compute_dtype);

}  // namespace satin::train
