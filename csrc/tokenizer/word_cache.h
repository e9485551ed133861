// Words seen before, with their symbols: a hash table over two arenas, emptied when it is full.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace satin::tokenizer {

/// A token and the bytes of the text that it stands for.
struct Symbol {
  int32_t id;
  uint32_t begin, end;
};

/// One thread at a time.
class WordCache {
 public:
  /// Null data() when the word is not there; valid until the next insert.
  std::span<const Symbol> find(std::string_view word) const {
    if (slots_.empty()) return {};
    const size_t hash = std::hash<std::string_view>()(word);
    for (size_t i = hash & (slots_.size() - 1); slots_[i].size; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[i];
      if (slot.hash == static_cast<uint32_t>(hash >> 32) &&
          std::string_view(text_).substr(slot.text, slot.size) == word)
        return {symbols_.data() + slot.symbols, slot.num_symbols};
    }
    return {};
  }

  /// `word` is not there, not empty and has at least one symbol.
  void insert(std::string_view word, std::span<const Symbol> symbols) {
    if (slots_.empty() || num_words_ == kMaxWords) {
      slots_.assign(2 * kMaxWords, {});
      text_.clear();
      symbols_.clear();
      num_words_ = 0;
    }
    const size_t hash = std::hash<std::string_view>()(word);
    size_t i = hash & (slots_.size() - 1);
    while (slots_[i].size) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {static_cast<uint32_t>(hash >> 32), static_cast<uint32_t>(text_.size()),
                 static_cast<uint32_t>(word.size()), static_cast<uint32_t>(symbols_.size()),
                 static_cast<uint32_t>(symbols.size())};
    text_ += word;
    symbols_.insert(symbols_.end(), symbols.begin(), symbols.end());
    ++num_words_;
  }

 private:
  static constexpr size_t kMaxWords = 1 << 16;
  struct Slot {
    uint32_t hash = 0, text = 0, size = 0, symbols = 0, num_symbols = 0;  // size 0: free
  };
  std::vector<Slot> slots_;
  std::string text_;
  std::vector<Symbol> symbols_;
  size_t num_words_ = 0;
};

}  // namespace satin::tokenizer
