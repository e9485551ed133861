// UTF-8: decoding, encoding, and the repair of invalid input.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace satin::tokenizer {

/// Bytes of the character that starts with `lead`, in valid UTF-8.
inline size_t char_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/// Whether `byte` is inside a character (10xxxxxx).
inline bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

/// Code point at text[position], which is moved past it. `text` must be valid UTF-8.
char32_t next_code_point(std::string_view text, size_t& position);

void append_code_point(std::string& out, char32_t code_point);

/// Length of the longest valid prefix.
size_t valid_utf8_prefix(std::string_view text);

/// `text` with every maximal invalid subpart replaced by U+FFFD, as Python's bytes.decode(errors="replace") does; adds
/// their number to `num_replaced`.
/// Source: The Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts", table 3-7.
std::string replace_invalid_utf8(std::string_view text, uint64_t& num_replaced);

}  // namespace satin::tokenizer
