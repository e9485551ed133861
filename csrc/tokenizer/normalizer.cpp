#include "tokenizer/normalizer.h"

#include <map>
#include <string>

#include "tokenizer/json_node.h"
#include "tokenizer/regex.h"
#include "tokenizer/unicode_form.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {

Text replace_matches(const Text& text, const Regex& pattern, const std::string& content) {
  TextRewriter rewriter(text);
  size_t copied = 0;
  pattern.for_each_match(text.bytes(), [&](size_t begin, size_t end) {
    rewriter.copy(copied, begin);
    rewriter.replace(begin, end, content);
    copied = end;
  });
  rewriter.copy(copied, text.bytes().size());
  return rewriter.finish();
}

Text prepend(const Text& text, std::string_view prefix) {
  if (text.bytes().empty()) return text;
  const size_t first = char_length(text.bytes()[0]);
  TextRewriter rewriter(text);
  rewriter.replace(0, first, std::string(prefix) + std::string(text.bytes().substr(0, first)));
  rewriter.copy(first, text.bytes().size());
  return rewriter.finish();
}

Normalizer Normalizer::parse(const JsonNode& node) {
  Normalizer normalizer;
  normalizer.add(node, 0);
  return normalizer;
}

void Normalizer::add(const JsonNode& node, int depth) {
  static const std::map<std::string, UnicodeForm> forms{{"NFC", UnicodeForm::kNfc},
                                                        {"NFD", UnicodeForm::kNfd},
                                                        {"NFKC", UnicodeForm::kNfkc},
                                                        {"NFKD", UnicodeForm::kNfkd}};
  const std::string& type = node.type();
  if (type == "Sequence") {
    if (depth == kMaxDepth) node.fail("Sequences are nested too deep");
    for (const JsonNode& item : node.at("normalizers").items()) add(item, depth + 1);
  } else if (const auto form = forms.find(type); form != forms.end()) {
    steps_.push_back([form = form->second](Text& text) { text = normalize(text, form); });
  } else if (type == "Lowercase") {
    steps_.push_back([](Text& text) { text = lowercase(text); });
  } else if (type == "Prepend") {
    steps_.push_back([prefix = node.at("prepend").string()](Text& text) { text = prepend(text, prefix); });
  } else if (type == "Replace") {
    steps_.push_back([pattern = Regex::parse(node.at("pattern")), content = node.at("content").string()](Text& text) {
      text = replace_matches(text, pattern, content);
    });
  } else {
    node.unsupported("normalizer type '" + type + "'", "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Sequence");
  }
}

void Normalizer::apply(Text& text) const {
  const size_t input_bytes = text.bytes().size();
  for (const auto& step : steps_) {
    step(text);
    check_growth(input_bytes, text.bytes().size());
  }
}

}  // namespace satin::tokenizer
