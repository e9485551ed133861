#include "tokenizer/pre_tokenizer.h"

#include <string>

#include "tokenizer/json_node.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/split.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {
namespace {

// Source: GPT-2, encoder.py.
constexpr const char* kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Numbers of Unicode 17, which the library's own is_numeric knows and its regular expressions do not.
constexpr const char* kDigitPattern = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

// Rewrites every piece of `text` by `rewrite(piece as a text)`.
template <class Rewrite>
void rewrite_pieces(Text& text, std::vector<Range>& pieces, Rewrite rewrite) {
  if (pieces.size() == 1 && pieces[0].begin == 0 && pieces[0].end == text.bytes().size()) {
    rewrite(text);
    pieces[0].end = text.bytes().size();
    return;
  }
  Text joined({}, text.offset(), text.tracked());
  for (Range& piece : pieces) {
    Text part = text.slice(piece.begin, piece.end);
    rewrite(part);
    piece.begin = joined.bytes().size();
    joined.append(part);
    piece.end = joined.bytes().size();
  }
  text = std::move(joined);
}

}  // namespace

PreTokenizer PreTokenizer::parse(const JsonNode& node) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.add(node, 0);
  return pre_tokenizer;
}

void PreTokenizer::add(const JsonNode& node, int depth) {
  const std::string& type = node.type();
  if (byte_level_) node.unsupported("a pre_tokenizer after ByteLevel", "ByteLevel at the end of a Sequence");
  if (type == "Sequence") {
    if (depth == kMaxDepth) node.fail("Sequences are nested too deep");
    for (const JsonNode& item : node.at("pretokenizers").items()) add(item, depth + 1);
  } else if (type == "ByteLevel") {
    add_byte_level(node);
  } else if (type == "Metaspace") {
    add_metaspace(node);
  } else if (type == "Split") {
    steps_.push_back([split = Splitter::parse(node)](Text& text, auto& pieces) { split.apply(text.bytes(), pieces); });
  } else if (type == "Digits") {
    const bool individual = node.boolean_or("individual_digits", false);
    const Splitter split(Regex::compile(kDigitPattern, node),
                         individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
    steps_.push_back([split](Text& text, auto& pieces) { split.apply(text.bytes(), pieces); });
  } else {
    node.unsupported("pre_tokenizer type '" + type + "'", "ByteLevel, Split, Digits, Metaspace, Sequence");
  }
}

void PreTokenizer::add_byte_level(const JsonNode& node) {
  byte_level_ = true;
  if (node.boolean_or("add_prefix_space", true)) {
    steps_.push_back([](Text& text, auto& pieces) {
      rewrite_pieces(text, pieces, [](Text& piece) {
        if (piece.bytes().substr(0, 1) != " ") piece = prepend(piece, " ");
      });
    });
  }
  if (node.boolean_or("use_regex", true)) {
    const Splitter split(Regex::compile(kGpt2Pattern, node), SplitBehavior::kIsolated);
    steps_.push_back([split](Text& text, auto& pieces) { split.apply(text.bytes(), pieces); });
  }
}

void PreTokenizer::add_metaspace(const JsonNode& node) {
  const std::string replacement = node.at("replacement").string();
  if (replacement.empty() || char_length(replacement[0]) != replacement.size())
    node.fail("\"replacement\" must be one character");
  std::string scheme = node.string_or("prepend_scheme", "always");
  if (scheme != "always" && scheme != "first" && scheme != "never")
    node.unsupported("prepend_scheme '" + scheme + "'", "always, first, never");
  if (!node.boolean_or("add_prefix_space", true)) {
    if (node.find("prepend_scheme") && scheme != "never")
      node.fail("add_prefix_space is false, but prepend_scheme is '" + scheme + "'");
    scheme = "never";
  }
  const Regex space = Regex::literal(" ", node);
  steps_.push_back([=](Text& text, auto& pieces) {
    rewrite_pieces(text, pieces, [&](Text& piece) {
      const bool first = piece.offset() == 0;
      piece = replace_matches(piece, space, replacement);
      if (scheme == "never" || (scheme == "first" && !first)) return;
      if (piece.bytes().substr(0, replacement.size()) != replacement) piece = prepend(piece, replacement);
    });
  });
  if (node.boolean_or("split", true)) {
    const Splitter split(Regex::literal(replacement, node), SplitBehavior::kMergedWithNext);
    steps_.push_back([split](Text& text, auto& pieces) { split.apply(text.bytes(), pieces); });
  }
}

void PreTokenizer::apply(Text& text, std::vector<Range>& pieces) const {
  pieces.clear();
  if (!text.bytes().empty()) pieces.push_back({0, text.bytes().size()});
  const size_t input_bytes = text.bytes().size();
  for (const auto& step : steps_) {
    step(text, pieces);
    check_growth(input_bytes, text.bytes().size());
  }
}

}  // namespace satin::tokenizer
