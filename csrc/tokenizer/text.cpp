#include "tokenizer/text.h"

#include "core/error.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {

Range Text::source(size_t begin, size_t end) const {
  if (rewritten_) {
    SATIN_CHECK(tracked_);
    if (begin < end) return {sources_[begin].begin, sources_[end - 1].end};
    const size_t at = begin < sources_.size() ? sources_[begin].begin
                      : sources_.empty()      ? offset_
                                              : sources_.back().end;
    return {at, at};
  }
  if (begin < end) {  // a token may hold part of a character's bytes
    while (begin > 0 && is_continuation(input_[begin])) --begin;
    while (end < input_.size() && is_continuation(input_[end])) ++end;
  }
  return {offset_ + begin, offset_ + end};
}

Text Text::slice(size_t begin, size_t end) const {
  if (!rewritten_) return Text(input_.substr(begin, end - begin), offset_ + begin, tracked_);
  Text part({}, offset_ + begin, tracked_);
  part.rewritten_ = true;
  part.owned_ = owned_.substr(begin, end - begin);
  if (tracked_) part.sources_.assign(sources_.begin() + begin, sources_.begin() + end);
  return part;
}

void Text::append(const Text& more) {
  TextRewriter rewriter(more);
  rewriter.copy(0, more.bytes().size());
  const Text copy = rewriter.finish();
  if (!rewritten_) SATIN_CHECK(input_.empty());
  rewritten_ = true;
  owned_ += copy.owned_;
  sources_.insert(sources_.end(), copy.sources_.begin(), copy.sources_.end());
}

TextRewriter::TextRewriter(const Text& from) : from_(from), result_({}, from.offset_, from.tracked_) {
  result_.rewritten_ = true;
  const size_t expected = from.bytes().size() + from.bytes().size() / 4 + 16;
  result_.owned_.reserve(expected);
  if (from.tracked_) result_.sources_.reserve(expected);
}

void TextRewriter::copy(size_t begin, size_t end) {
  const std::string_view bytes = from_.bytes();
  result_.owned_.append(bytes.substr(begin, end - begin));
  if (!from_.tracked_) return;
  if (from_.rewritten_) {
    result_.sources_.insert(result_.sources_.end(), from_.sources_.begin() + begin, from_.sources_.begin() + end);
    return;
  }
  while (begin < end) {
    const size_t length = char_length(bytes[begin]);
    result_.sources_.insert(result_.sources_.end(), length, {from_.offset_ + begin, from_.offset_ + begin + length});
    begin += length;
  }
}

void TextRewriter::replace(size_t begin, size_t end, std::string_view content) {
  result_.owned_.append(content);
  if (from_.tracked_) result_.sources_.insert(result_.sources_.end(), content.size(), from_.source(begin, end));
}

void check_growth(size_t input_bytes, size_t bytes) {
  constexpr size_t kMaxFactor = 64, kSlackBytes = 1 << 16;
  if (bytes <= kMaxFactor * input_bytes + kSlackBytes) return;
  throw UserError(cat("the tokenizer's components made ", input_bytes, " bytes of text into ", bytes,
                      ": check the Replace, Prepend and Metaspace components of tokenizer.json"));
}

}  // namespace satin::tokenizer
