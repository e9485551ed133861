// How a tokenizer cuts text before BPE, as llama.cpp names it (tokenizer.ggml.pre), and tokenizer.json's components of
// that name.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace satin::exporting::gguf {

/// The name whose cuts are the same as tokenizer.json's. Throws UserError with `where` when llama.cpp has none that we
/// know: another name would silently change tokens.
std::string pre_tokenizer_name(const nlohmann::json& tokenizer, const std::string& where);

/// Sets normalizer, pre_tokenizer, decoder and the model's flags. Throws UserError for a name that is not known.
void describe_pre_tokenizer(const std::string& name, nlohmann::json& tokenizer, const std::string& where);

/// Where a file has no add_bos_token.
bool adds_bos_by_default(const nlohmann::json& tokenizer);

}  // namespace satin::exporting::gguf
