#include "tokenizer/decoder.h"

#include <charconv>
#include <optional>

#include "tokenizer/byte_alphabet.h"
#include "tokenizer/json_node.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/regex.h"

namespace satin::tokenizer {
namespace {

using Tokens = std::vector<std::string>;
constexpr const char* kReplacement = "\xef\xbf\xbd";

std::string joined(const Tokens& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  return text;
}

void decode_byte_level(Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) {
    const auto spelled = spelled_bytes(token);
    bytes += spelled ? *spelled : token;
  }
  uint64_t ignored = 0;
  tokens = {replace_invalid_utf8(bytes, ignored)};
}

std::optional<char> fallback_byte(const std::string& token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  unsigned value = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return static_cast<char>(value);
}

// Runs of <0xHH> become their bytes; a run that is not valid UTF-8 becomes one U+FFFD a byte.
void decode_byte_fallback(Tokens& tokens) {
  Tokens out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (valid_utf8_prefix(bytes) == bytes.size())
      out.push_back(bytes);
    else
      out.insert(out.end(), bytes.size(), kReplacement);
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = fallback_byte(token)) {
      bytes += *byte;
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

// Removes up to `start` leading and `stop` trailing occurrences of `content` from every token.
void strip(Tokens& tokens, const std::string& content, int64_t start, int64_t stop) {
  for (std::string& token : tokens) {
    size_t begin = 0, end = token.size();
    for (int64_t i = 0; i < start && token.compare(begin, content.size(), content) == 0; ++i) begin += content.size();
    for (int64_t i = 0;
         i < stop && end >= begin + content.size() && token.compare(end - content.size(), content.size(), content) == 0;
         ++i)
      end -= content.size();
    token = token.substr(begin, end - begin);
  }
}

std::string one_character(const JsonNode& node) {
  const std::string& text = node.string();
  if (text.empty() || char_length(text[0]) != text.size()) node.fail("expected one character, found '" + text + "'");
  return text;
}

}  // namespace

Decoder Decoder::parse(const JsonNode& node) {
  Decoder decoder;
  decoder.declared_ = true;
  decoder.add(node, 0);
  return decoder;
}

void Decoder::add(const JsonNode& node, int depth) {
  const std::string& type = node.type();
  if (type == "Sequence") {
    if (depth == kMaxDepth) node.fail("Sequences are nested too deep");
    for (const JsonNode& item : node.at("decoders").items()) add(item, depth + 1);
  } else if (type == "ByteLevel") {
    steps_.push_back(decode_byte_level);
  } else if (type == "ByteFallback") {
    steps_.push_back(decode_byte_fallback);
  } else if (type == "Fuse") {
    steps_.push_back([](Tokens& tokens) { tokens = {joined(tokens)}; });
  } else if (type == "Strip") {
    const int64_t start = node.at("start").integer(), stop = node.at("stop").integer();
    steps_.push_back(
        [=, content = one_character(node.at("content"))](Tokens& tokens) { strip(tokens, content, start, stop); });
  } else if (type == "Replace") {
    steps_.push_back(
        [pattern = Regex::parse(node.at("pattern")), content = node.at("content").string()](Tokens& tokens) {
          for (std::string& token : tokens) token = replace_matches(Text(token, 0, false), pattern, content).bytes();
        });
  } else if (type == "Metaspace") {
    const bool prepended =
        node.string_or("prepend_scheme", "always") != "never" && node.boolean_or("add_prefix_space", true);
    const std::string replacement = one_character(node.at("replacement"));
    const Regex pattern = Regex::literal(replacement, node);
    steps_.push_back([=](Tokens& tokens) {
      for (size_t i = 0; i < tokens.size(); ++i) {
        const char* space = i == 0 && prepended ? "" : " ";
        tokens[i] = replace_matches(Text(tokens[i], 0, false), pattern, space).bytes();
      }
    });
  } else {
    node.unsupported("decoder type '" + type + "'",
                     "ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, Sequence");
  }
}

std::string Decoder::decode(Tokens tokens) const {
  if (!declared_) {
    std::string text;
    for (const std::string& token : tokens) text += text.empty() ? token : " " + token;
    return text;
  }
  const auto num_bytes = [&] {
    size_t sum = 0;
    for (const std::string& token : tokens) sum += token.size();
    return sum;
  };
  const size_t input_bytes = num_bytes();
  for (const auto& step : steps_) {
    step(tokens);
    check_growth(input_bytes, num_bytes());
  }
  return joined(tokens);
}

}  // namespace satin::tokenizer
