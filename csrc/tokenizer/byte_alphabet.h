// The 256 printable characters that spell bytes in byte-level vocabularies.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "tokenizer/utf8.h"

namespace satin::tokenizer {

/// Character of every byte: itself where it is printable Latin-1, else U+0100 and on. Source: GPT-2, encoder.py.
inline const std::array<char32_t, 256>& byte_characters() {
  static const auto characters = [] {
    std::array<char32_t, 256> table{};
    char32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
      table[b] = printable ? static_cast<char32_t>(b) : next++;
    }
    return table;
  }();
  return characters;
}

/// The bytes that `token` spells; nothing when one of its characters spells none.
inline std::optional<std::string> spelled_bytes(std::string_view token) {
  static const auto bytes = [] {
    std::array<int, 512> table;
    table.fill(-1);
    for (int b = 0; b < 256; ++b) table[byte_characters()[b]] = b;
    return table;
  }();
  std::string out;
  for (size_t i = 0; i < token.size();) {
    const char32_t c = next_code_point(token, i);
    if (c >= bytes.size() || bytes[c] < 0) return std::nullopt;
    out += static_cast<char>(bytes[c]);
  }
  return out;
}

}  // namespace satin::tokenizer
