// The "normalizer" of tokenizer.json: NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, and Sequences of them.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tokenizer/text.h"

namespace satin::tokenizer {

class JsonNode;
class Regex;

class Normalizer {
 public:
  /// Does nothing.
  Normalizer() = default;
  /// Throws UserError naming the component that is not supported or malformed.
  static Normalizer parse(const JsonNode& node);

  void apply(Text& text) const;
  bool empty() const { return steps_.empty(); }

 private:
  void add(const JsonNode& node, int depth);
  std::vector<std::function<void(Text&)>> steps_;
};

/// Writes `content` in place of every match.
Text replace_matches(const Text& text, const Regex& pattern, const std::string& content);

/// Writes `prefix` before the text; it shares the source of the first character. Empty text stays empty.
Text prepend(const Text& text, std::string_view prefix);

}  // namespace satin::tokenizer
