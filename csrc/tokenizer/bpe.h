// Byte-pair encoding: from a piece of text to token ids.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/pair_table.h"
#include "tokenizer/word_cache.h"

namespace satin::tokenizer {

class JsonNode;

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <class T>
using StringMap = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

/// The "model" of tokenizer.json, type BPE. Merges are done in order of (rank, position).
/// Source: Sennrich et al. 2016 (1508.07909), algorithm 1.
class Bpe {
 public:
  /// `byte_level`: the vocabulary spells bytes, text arrives as bytes. Throws UserError.
  static Bpe parse(const JsonNode& model, bool byte_level);

  /// Appends to `out` the symbols of `piece` (valid UTF-8, below 4 GiB). Throws UserError when a character is unknown
  /// and the vocabulary lacks the declared unk_token.
  void encode(std::string_view piece, WordCache& cache, std::vector<Symbol>& out) const;

  /// Every token with its id.
  const StringMap<int32_t>& vocab() const { return vocab_; }

 private:
  static constexpr size_t kShortWord = 32;  // symbols; above it a heap is faster than scanning
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  void read_vocab(const JsonNode& model);
  void read_merges(const JsonNode& model);
  void add_joint(const std::string& left, const std::string& right);
  void encode_word(std::string_view word, uint32_t offset, WordCache& cache, std::vector<Symbol>& out) const;
  void split_into_characters(std::string_view word, std::vector<Symbol>& symbols) const;
  int32_t character_id(char32_t c) const;
  bool can_cut(char32_t left, char32_t right) const;
  void merge_short(std::vector<Symbol>& symbols, size_t first) const;
  void merge_long(std::vector<Symbol>& symbols, size_t first) const;
  int32_t unk_id() const;

  StringMap<int32_t> vocab_;
  StringMap<int32_t> whole_words_;  // text -> id, with ignore_merges
  PairTable<Merge> merges_;
  std::array<int32_t, 256> byte_ids_;  // of byte characters (byte_level) or of <0xHH> (byte_fallback); -1
  std::vector<int32_t> basic_ids_;     // of characters below U+10000; -1
  std::unordered_map<char32_t, int32_t> other_ids_;
  PairTable<bool> joints_;  // characters that some merge joins
  bool cuttable_ = false;   // whether text may be cut where no merge joins
  bool all_bytes_ = false;  // no entry of byte_ids_ is -1
  bool byte_level_ = false, byte_fallback_ = false, fuse_unk_ = false;
  std::string unk_token_;
};

}  // namespace satin::tokenizer
