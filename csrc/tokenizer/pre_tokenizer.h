// The "pre_tokenizer" of tokenizer.json: cuts text into pieces that the model then sees one by one.
#pragma once
#include <functional>
#include <vector>

#include "tokenizer/text.h"

namespace satin::tokenizer {

class JsonNode;

class PreTokenizer {
 public:
  /// The whole text is one piece.
  PreTokenizer() = default;
  /// ByteLevel, Split, Digits, Metaspace and Sequences of them; ByteLevel only at the end.
  /// Throws UserError naming the component that is not supported or malformed.
  static PreTokenizer parse(const JsonNode& node);

  /// Replaces `pieces` by the pieces of `text`, which may be rewritten (a space put before it, say). None is empty.
  void apply(Text& text, std::vector<Range>& pieces) const;
  /// Whether the model works on bytes (spelled by 256 printable characters in the vocabulary) and not on characters.
  bool byte_level() const { return byte_level_; }

 private:
  void add(const JsonNode& node, int depth);
  void add_byte_level(const JsonNode& node);
  void add_metaspace(const JsonNode& node);
  std::vector<std::function<void(Text&, std::vector<Range>&)>> steps_;
  bool byte_level_ = false;
};

}  // namespace satin::tokenizer
