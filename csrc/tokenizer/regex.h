// Regular expressions of tokenizer.json (Oniguruma's dialect), run by PCRE2.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/text.h"

namespace satin::tokenizer {

class JsonNode;

class Regex {
 public:
  /// Throws UserError naming `where` when the pattern is malformed or uses something not carried over from Oniguruma.
  static Regex compile(const std::string& oniguruma_pattern, const JsonNode& where);
  /// Matches `text` itself.
  static Regex literal(const std::string& text, const JsonNode& where);
  /// {"Regex": "..."} or {"String": "..."}.
  static Regex parse(const JsonNode& pattern);

  /// Calls `found(begin, end)` for each match from left to right. `text` must be valid UTF-8; look-around sees only it.
  /// Throws UserError when matching takes too many steps.
  void for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& found) const;

 private:
  Regex(const std::string& pcre_pattern, unsigned options, const std::string& shown, const JsonNode& where);
  bool search(std::string_view text, size_t start, Range& match) const;
  std::shared_ptr<const void> code_;  // pcre2_code
  std::string shown_;
  bool jit_ = false;
};

/// The PCRE2 pattern that matches exactly what `pattern` matches in Oniguruma 6.9.10 (Ruby syntax, UTF-8).
std::string translate_oniguruma(std::string_view pattern, const JsonNode& where);

}  // namespace satin::tokenizer
