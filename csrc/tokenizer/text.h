// A stretch of text on its way from the input to the model, with the input bytes that every one of its bytes came from.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace satin::tokenizer {

/// Bytes [begin, end).
struct Range {
  size_t begin, end;
};

class Text {
 public:
  /// A part of the input that starts at byte `offset` of it. `input` must outlive the object. Sources are kept through
  /// rewrites only with `tracked`; without it source() may be asked of unrewritten text alone.
  Text(std::string_view input, size_t offset, bool tracked) : input_(input), offset_(offset), tracked_(tracked) {}

  std::string_view bytes() const { return rewritten_ ? std::string_view(owned_) : input_; }
  /// Where the text starts in the input.
  size_t offset() const { return offset_; }
  bool tracked() const { return tracked_; }
  /// Input bytes that the bytes [begin, end) came from, in whole characters.
  Range source(size_t begin, size_t end) const;
  Text slice(size_t begin, size_t end) const;
  /// Puts the bytes and sources of `more` behind this text's.
  void append(const Text& more);

 private:
  friend class TextRewriter;
  std::string_view input_;
  size_t offset_;
  bool tracked_;
  bool rewritten_ = false;
  std::string owned_;
  std::vector<Range> sources_;  // one a byte of owned_, when rewritten and tracked
};

/// Builds the next version of a text from left to right.
class TextRewriter {
 public:
  explicit TextRewriter(const Text& from);
  /// Takes over the bytes [begin, end), whole characters.
  void copy(size_t begin, size_t end);
  /// Writes `content` in place of [begin, end): each of its bytes came from all of that range.
  void replace(size_t begin, size_t end, std::string_view content);
  /// Bytes written so far.
  size_t size() const { return result_.owned_.size(); }
  Text finish() { return std::move(result_); }

 private:
  const Text& from_;
  Text result_;
};

/// Throws UserError when a tokenizer's rewriting made `input_bytes` into so many bytes that its file must be wrong.
void check_growth(size_t input_bytes, size_t bytes);

}  // namespace satin::tokenizer
