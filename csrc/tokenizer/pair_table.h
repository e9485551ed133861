// A hash table from pairs of 32-bit numbers to T, for the innermost loop of BPE: open addressing, no erasure.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace satin::tokenizer {

template <class T>
class PairTable {
 public:
  PairTable() : slots_(16) {}

  /// The value of (left, right), or null. Neither number may be 2^32 - 1.
  const T* find(uint32_t left, uint32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = home(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return &slots_[i].value;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }

  /// Inserts or overwrites.
  void set(uint32_t left, uint32_t right, const T& value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = place(key_of(left, right));
    if (slot.key == kEmpty) ++size_;
    slot = {key_of(left, right), value};
  }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    T value{};
  };
  static uint64_t key_of(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 32 | right; }
  size_t home(uint64_t key) const {
    key *= 0x9e3779b97f4a7c15u;  // 2^64 over the golden ratio
    return (key ^ key >> 32) & (slots_.size() - 1);
  }
  Slot& place(uint64_t key) {
    size_t i = home(key);
    while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.key != kEmpty) place(slot.key) = slot;
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace satin::tokenizer
