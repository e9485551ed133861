// The "decoder" of tokenizer.json: from token strings back to text.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace satin::tokenizer {

class JsonNode;

class Decoder {
 public:
  /// Joins tokens with spaces, as the `tokenizers` library does when there is no decoder.
  Decoder() = default;
  /// ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace and Sequences of them. Throws UserError.
  static Decoder parse(const JsonNode& node);

  std::string decode(std::vector<std::string> tokens) const;

 private:
  void add(const JsonNode& node, int depth);
  bool declared_ = false;
  std::vector<std::function<void(std::vector<std::string>&)>> steps_;
};

}  // namespace satin::tokenizer
