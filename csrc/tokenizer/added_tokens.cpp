#include "tokenizer/added_tokens.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "tokenizer/json_node.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/unicode_form.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {
namespace {

char32_t character_before(std::string_view text, size_t end, size_t& begin) {
  begin = end - 1;
  while (begin > 0 && is_continuation(text[begin])) --begin;
  size_t position = begin;
  return next_code_point(text, position);
}

bool inside_word(std::string_view text, Range match) {
  size_t begin = 0;
  if (match.begin > 0 && is_word_character(character_before(text, match.begin, begin))) return true;
  size_t end = match.end;
  return end < text.size() && is_word_character(next_code_point(text, end));
}

size_t skip_space_left(std::string_view text, size_t end, size_t limit) {
  size_t begin = end;
  while (end > limit && is_white_space(character_before(text, end, begin))) end = begin;
  return end;
}

size_t skip_space_right(std::string_view text, size_t begin) {
  for (size_t next = begin; begin < text.size() && is_white_space(next_code_point(text, next));) begin = next;
  return begin;
}

}  // namespace

void StringFinder::add(const std::string& text, size_t value) {
  if (text.empty()) return;
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const auto [child, fresh] =
        children_.try_emplace(static_cast<uint64_t>(node) << 8 | byte, static_cast<uint32_t>(values_.size()));
    if (fresh) values_.push_back(kNoValue);
    node = child->second;
  }
  values_[node] = value;
  starts_[static_cast<unsigned char>(text[0])] = true;
}

bool StringFinder::find(std::string_view text, size_t start, Range& match, size_t& value) const {
  if (empty()) return false;
  for (; start < text.size(); ++start) {
    if (!starts_[static_cast<unsigned char>(text[start])]) continue;
    bool found = false;
    uint32_t node = 0;
    for (size_t i = start; i < text.size(); ++i) {
      const auto child = children_.find(static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(text[i]));
      if (child == children_.end()) break;
      node = child->second;
      if (values_[node] == kNoValue) continue;
      found = true;
      match = {start, i + 1};
      value = values_[node];
    }
    if (found) return true;
  }
  return false;
}

AddedTokens AddedTokens::parse(const JsonNode& list, const StringMap<int32_t>& vocab, const Normalizer& normalizer) {
  AddedTokens added;
  std::unordered_set<int32_t> vocab_ids;
  for (const auto& [token, id] : vocab) vocab_ids.insert(id);
  std::unordered_map<int32_t, std::string> seen;
  for (const JsonNode& node : list.items()) {
    AddedToken token;
    token.content = node.at("content").string();
    const int64_t id = node.at("id").integer();
    if (id < 0 || id > kMaxId) node.fail(cat("id is ", id, ", expected 0 to ", kMaxId));
    token.id = static_cast<int32_t>(id);
    if (token.content.empty()) continue;
    const auto known = vocab.find(token.content);
    if (known != vocab.end() ? known->second != token.id : vocab_ids.count(token.id) > 0)
      node.fail(cat("'", token.content, "' has id ", id,
                    ", which the vocabulary gives to another token, or the other way round"));
    const auto [other, fresh] = seen.emplace(token.id, token.content);
    if (!fresh && other->second == token.content) continue;
    if (!fresh) node.fail(cat("'", token.content, "' has id ", id, ", and so has '", other->second, "'"));
    token.single_word = node.boolean_or("single_word", false);
    token.lstrip = node.boolean_or("lstrip", false);
    token.rstrip = node.boolean_or("rstrip", false);
    token.special = node.boolean_or("special", false);
    token.normalized = node.boolean_or("normalized", !token.special);
    token.normal_form = token.content;
    if (token.normalized) {
      Text text(token.content, 0, false);
      normalizer.apply(text);
      token.normal_form = text.bytes();
    }
    (token.normalized ? added.normalized_ : added.raw_).add(token.normal_form, added.tokens_.size());
    added.tokens_.push_back(std::move(token));
  }
  return added;
}

void AddedTokens::split(std::string_view text, bool normalized, const Part& part) const {
  size_t done = 0, value = 0;
  Range match{0, 0};
  for (size_t from = 0; (normalized ? normalized_ : raw_).find(text, from, match, value);) {
    const AddedToken& token = tokens_[value];
    from = match.end;
    if (token.single_word && inside_word(text, match)) continue;
    if (token.lstrip) match.begin = std::max(skip_space_left(text, match.begin, 0), done);
    if (token.rstrip) match.end = skip_space_right(text, match.end);
    if (done < match.begin) part({done, match.begin}, nullptr);
    part(match, &token);
    done = match.end;
  }
  if (done < text.size()) part({done, text.size()}, nullptr);
}

}  // namespace satin::tokenizer
