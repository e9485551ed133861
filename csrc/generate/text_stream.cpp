#include "generate/text_stream.h"

#include <algorithm>

namespace satin::generate {
namespace {
constexpr size_t kContextTokens = 8;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD: what decoders make of half a character

/// Bytes that both begin with, whole characters of `text` only.
size_t common_prefix(std::string_view text, std::string_view other) {
  size_t n =
      static_cast<size_t>(std::mismatch(text.begin(), text.end(), other.begin(), other.end()).first - text.begin());
  while (n > 0 && n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) --n;
  return n;
}
}  // namespace

TextStream::TextStream(const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& prompt)
    : tokenizer_(tokenizer),
      ids_(prompt.end() - static_cast<std::ptrdiff_t>(std::min(kContextTokens, prompt.size())), prompt.end()),
      num_given_(ids_.size()) {}

std::string TextStream::push(int32_t id) {
  ids_.push_back(id);
  return take(false);
}

std::string TextStream::finish() { return take(true); }

std::string TextStream::take(bool even_if_incomplete) {
  const std::string given = tokenizer_.decode({ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(num_given_)});
  const std::string all = tokenizer_.decode(ids_);
  if (all.ends_with(kReplacement) && !even_if_incomplete) return {};
  const size_t shared = common_prefix(all, given);  // all of `given`, unless the prompt ends inside a character
  if (shared == all.size()) return {};
  // The context becomes the tokens just given: their text ends at a character, so later pieces start at one.
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(num_given_));
  num_given_ = ids_.size();
  return all.substr(shared);
}

}  // namespace satin::generate
