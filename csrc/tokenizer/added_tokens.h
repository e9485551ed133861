// The "added_tokens" of tokenizer.json: found in the text before the model sees it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/text.h"

namespace satin::tokenizer {

class JsonNode;
class Normalizer;

struct AddedToken {
  std::string content;
  int32_t id = -1;
  bool single_word = false;  ///< not inside a word
  bool lstrip = false;       ///< takes the white space on its left with it
  bool rstrip = false;       ///< and on its right
  bool normalized = false;   ///< looked for, normalized, in the normalized text
  bool special = false;      ///< left out by decode(skip_special)
  std::string normal_form;   ///< content, normalized when `normalized`
};

/// Finds the leftmost of several strings, and the longest of those.
class StringFinder {
 public:
  void add(const std::string& text, size_t value);
  bool empty() const { return children_.empty(); }
  /// The first match at or after `start`; false when there is none.
  bool find(std::string_view text, size_t start, Range& match, size_t& value) const;

 private:
  static constexpr size_t kNoValue = SIZE_MAX;
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte -> node
  std::vector<size_t> values_{kNoValue};             // of each node
  std::array<bool, 256> starts_{};
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// `list` is the "added_tokens" array. Throws UserError when it contradicts the vocabulary.
  static AddedTokens parse(const JsonNode& list, const StringMap<int32_t>& vocab, const Normalizer& normalizer);

  /// Cuts `text` at the tokens that are (or are not) `normalized`; parts with a null token are ordinary text.
  using Part = std::function<void(Range, const AddedToken*)>;
  void split(std::string_view text, bool normalized, const Part& part) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  bool any_normalized() const { return !normalized_.empty(); }

 private:
  std::vector<AddedToken> tokens_;
  StringFinder raw_, normalized_;
};

}  // namespace satin::tokenizer
