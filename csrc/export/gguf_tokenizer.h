// A byte-level BPE tokenizer as GGUF keys, and back. Our own files also hold what llama.cpp has no key for (flags of
// added tokens, the exact pre-tokenizer) in "satin.tokenizer": tokenizer.json without its vocabulary and merges.
#pragma once
#include <filesystem>

#include "export/gguf_header.h"
#include "models/model_config.h"
#include "tokenizer/tokenizer.h"

namespace satin::exporting::gguf {

/// Adds tokenizer.ggml.*, tokenizer.chat_template and satin.tokenizer from the tokenizer of a model directory.
/// Throws UserError for what llama.cpp would cut into other tokens: a pre-tokenizer that it has no name for, a
/// normalizer other than NFC, added tokens that take white space with them.
void add_tokenizer(const std::filesystem::path& directory, const models::ModelConfig& config, Header& header);

/// The same keys as another file has them.
void copy_tokenizer(const Header& from, Header& to);

/// The tokenizer of a file. Throws UserError with `where`: no tokenizer, a model or pre-tokenizer that is not known.
tokenizer::Tokenizer tokenizer_of(const Header& header, const std::string& where);

/// The same as tokenizer.json and tokenizer_config.json in an existing directory.
void write_tokenizer_files(const Header& header, const std::string& where, const std::filesystem::path& directory);

}  // namespace satin::exporting::gguf
