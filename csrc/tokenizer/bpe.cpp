#include "tokenizer/bpe.h"

#include "core/error.h"
#include "tokenizer/byte_alphabet.h"

namespace satin::tokenizer {
namespace {

constexpr size_t kMaxCachedBytes = 64;  // longer words hardly repeat

}  // namespace

int32_t Bpe::character_id(char32_t c) const {
  if (c < basic_ids_.size()) return basic_ids_[c];
  const auto found = other_ids_.find(c);
  return found == other_ids_.end() ? -1 : found->second;
}

int32_t Bpe::unk_id() const {
  const auto found = vocab_.find(unk_token_);
  if (found == vocab_.end())
    throw UserError(cat("the tokenizer's vocabulary lacks its unk_token '", unk_token_, "', which this text needs"));
  return found->second;
}

void Bpe::split_into_characters(std::string_view word, std::vector<Symbol>& symbols) const {
  Symbol unknown{-1, 0, 0};  // waits for more to fuse with
  const auto flush = [&] {
    if (unknown.id >= 0) symbols.push_back(unknown);
    unknown.id = -1;
  };
  for (size_t i = 0; i < word.size();) {
    const auto begin = static_cast<uint32_t>(i);
    int32_t id;
    if (byte_level_) {
      id = byte_ids_[static_cast<unsigned char>(word[i++])];
    } else {
      id = character_id(next_code_point(word, i));
    }
    const auto end = static_cast<uint32_t>(i);
    if (id >= 0) {
      flush();
      symbols.push_back({id, begin, end});
      continue;
    }
    if (byte_fallback_) {
      bool all = true;
      for (uint32_t k = begin; k < end; ++k) all &= byte_ids_[static_cast<unsigned char>(word[k])] >= 0;
      if (all) {  // an unknown that waits stays behind these bytes, as in the `tokenizers` library
        for (uint32_t k = begin; k < end; ++k)
          symbols.push_back({byte_ids_[static_cast<unsigned char>(word[k])], k, k + 1});
        continue;
      }
    }
    if (unk_token_.empty()) continue;  // dropped
    if (unknown.id >= 0 && fuse_unk_) {
      unknown.end = end;
    } else {
      flush();
      unknown = {unk_id(), begin, end};
    }
  }
  flush();
}

bool Bpe::can_cut(char32_t left, char32_t right) const {
  if (joints_.find(left, right)) return false;
  // Unknown characters may fuse with, or be dropped from between, their neighbours, unless they become bytes.
  return (byte_fallback_ && all_bytes_) || (character_id(left) >= 0 && character_id(right) >= 0);
}

void Bpe::encode(std::string_view piece, WordCache& cache, std::vector<Symbol>& out) const {
  SATIN_CHECK(piece.size() < UINT32_MAX);
  if (!whole_words_.empty()) {
    const auto whole = whole_words_.find(piece);
    if (whole != whole_words_.end()) {
      out.push_back({whole->second, 0, static_cast<uint32_t>(piece.size())});
      return;
    }
  }
  if (!cuttable_) return encode_word(piece, 0, cache, out);
  size_t begin = 0;
  char32_t left = 0;
  for (size_t i = 0; i < piece.size();) {
    const size_t at = i;
    const char32_t right = next_code_point(piece, i);
    if (at > begin && can_cut(left, right)) {
      encode_word(piece.substr(begin, at - begin), static_cast<uint32_t>(begin), cache, out);
      begin = at;
    }
    left = right;
  }
  if (begin < piece.size()) encode_word(piece.substr(begin), static_cast<uint32_t>(begin), cache, out);
}

void Bpe::encode_word(std::string_view word, uint32_t offset, WordCache& cache, std::vector<Symbol>& out) const {
  const bool cached = word.size() > 1 && word.size() <= kMaxCachedBytes;
  const size_t first = out.size();
  const auto seen = cached ? cache.find(word) : std::span<const Symbol>();
  if (seen.data()) {
    out.insert(out.end(), seen.begin(), seen.end());
  } else {
    split_into_characters(word, out);
    if (out.size() - first <= kShortWord)
      merge_short(out, first);
    else
      merge_long(out, first);
    if (cached && out.size() > first) cache.insert(word, std::span(out).subspan(first));
  }
  if (offset == 0) return;
  for (size_t i = first; i < out.size(); ++i) {
    out[i].begin += offset;
    out[i].end += offset;
  }
}

}  // namespace satin::tokenizer
