// A decoder's architecture and its tensors' names as GGUF says them, both ways.
#pragma once
#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>

#include "export/gguf_header.h"
#include "models/model_config.h"

namespace satin::exporting::gguf {

/// "model.layers.3.mlp.up_proj.weight" <-> "blk.3.ffn_up.weight". Empty when there is no such tensor.
std::string gguf_name(const std::string& name);
std::string hf_name(const std::string& name);

/// Empty, or what of this architecture llama.cpp has no place for.
std::string architecture_refusal(const models::ModelConfig& config);

/// general.* and the architecture's keys (not the tokenizer's). `file_type`: of most weights.
void add_architecture(const models::ModelConfig& config, const std::string& name, Type file_type, Header& header);

/// config.json from the keys and tensors, in transformers' spelling. Throws UserError with `where` for architectures
/// and features that are not supported.
nlohmann::json hf_config_of(const Header& header, const std::string& dtype, const at::Tensor& rope_factors,
                            const std::string& where);

/// What llama3 scaling divides each frequency by, fp32 [head_dim / 2]; undefined for other types. Stored as
/// rope_freqs.weight.
at::Tensor rope_factors(const models::ModelConfig& config);

/// llama.cpp rotates neighbours in llama models, transformers halves: row i of the stored weight (or bias) is row
/// order[i] of ours. Undefined for other tensors and architectures. `architecture`: general.architecture. Throws
/// UserError when the heads do not have `num_rows` rows.
at::Tensor row_order(const models::ModelConfig& config, const std::string& architecture, const std::string& hf_name,
                     int64_t num_rows);

/// The object that a key's text is. Throws UserError with `where`: not a JSON object, or nested too deep.
nlohmann::json required_object(const Header& header, const std::string& key, const std::string& where);

/// general.architecture of a model_type.
std::string architecture_of(const std::string& model_type);

}  // namespace satin::exporting::gguf
