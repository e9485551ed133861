#include "tokenizer/utf8.h"

#include <cstring>

namespace satin::tokenizer {
namespace {

// Length of the valid character at text[i], or minus the length of the maximal invalid subpart there.
int examine(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
  const unsigned lead = byte(i);
  if (lead < 0x80) return 1;
  unsigned low = 0x80, high = 0xbf;  // range of the second byte
  int length = 0;
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;  // surrogates
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return -1;
  }
  for (int k = 1; k < length; ++k) {
    const unsigned next = byte(i + k);
    if (i + k >= text.size() || next < low || next > high) return -k;
    low = 0x80, high = 0xbf;
  }
  return length;
}

}  // namespace

char32_t next_code_point(std::string_view text, size_t& position) {
  const char* at = text.data() + position;
  const auto byte = [&](int k) { return static_cast<char32_t>(static_cast<unsigned char>(at[k])); };
  const size_t length = char_length(*at);
  position += length;
  switch (length) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  }
}

void append_code_point(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  if (c < 0x800) {
    out += static_cast<char>(0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      out += static_cast<char>(0xe0 | c >> 12);
    } else {
      out += static_cast<char>(0xf0 | c >> 18);
      out += static_cast<char>(0x80 | (c >> 12 & 0x3f));
    }
    out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
  }
  out += static_cast<char>(0x80 | (c & 0x3f));
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t word = 0;
    if (i + 8 <= text.size() && (std::memcpy(&word, text.data() + i, 8), (word & 0x8080808080808080u) == 0)) {
      i += 8;  // eight ASCII bytes
      continue;
    }
    const int length = examine(text, i);
    if (length < 0) break;
    i += length;
  }
  return i;
}

std::string replace_invalid_utf8(std::string_view text, uint64_t& num_replaced) {
  std::string out;
  out.reserve(text.size() + 16);
  while (true) {
    const size_t valid = valid_utf8_prefix(text);
    out.append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return out;
    out += "\xef\xbf\xbd";
    ++num_replaced;
    text.remove_prefix(-examine(text, 0));
  }
}

}  // namespace satin::tokenizer
