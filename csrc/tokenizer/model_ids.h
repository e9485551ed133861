// Which tokens begin and end a text.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace satin::tokenizer {

class JsonNode;

struct ModelIds {
  int32_t bos = -1, eos = -1;
  bool adds_bos = false, adds_eos = false;  ///< the post_processor puts them around every text
};

using TokenToId = std::function<int32_t(const std::string&)>;

/// From the "post_processor" of tokenizer.json: TemplateProcessing (also inside a Sequence); ByteLevel changes no ids.
/// Throws UserError naming anything else.
ModelIds ids_from_post_processor(const JsonNode& node, const TokenToId& token_to_id);

/// BOS and EOS as the directory's tokenizer_config.json declares them, else generation_config.json, else config.json,
/// else as they are in `ids`. A null in tokenizer_config.json means "none". Throws UserError naming the file.
ModelIds ids_from_directory(const std::filesystem::path& directory, ModelIds ids, const TokenToId& token_to_id);

}  // namespace satin::tokenizer
