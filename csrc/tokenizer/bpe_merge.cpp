// Merging the symbols of one word: a scan for short words, a heap for long ones.
#include <algorithm>
#include <array>
#include <queue>

#include "tokenizer/bpe.h"

namespace satin::tokenizer {

void Bpe::merge_short(std::vector<Symbol>& out, size_t first) const {
  constexpr uint32_t kNone = UINT32_MAX;
  std::array<Merge, kShortWord> next;  // merge of symbols i and i + 1
  Symbol* const symbols = out.data() + first;
  size_t n = out.size() - first;
  const auto look_up = [&](size_t i) {
    const Merge* merge = merges_.find(symbols[i].id, symbols[i + 1].id);
    next[i] = merge ? *merge : Merge{kNone, -1};
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (next[i].rank < next[best].rank) best = i;
    if (next[best].rank == kNone) break;
    symbols[best] = {next[best].id, symbols[best].begin, symbols[best + 1].end};
    std::copy(symbols + best + 2, symbols + n, symbols + best + 1);
    std::copy(next.begin() + best + 1, next.begin() + n - 1, next.begin() + best);
    --n;
    if (best > 0) look_up(best - 1);
    if (best + 1 < n) look_up(best);
  }
  out.resize(first + n);
}

void Bpe::merge_long(std::vector<Symbol>& out, size_t first) const {
  struct Candidate {
    uint32_t rank, position;
    int32_t left, right;  // ids when it was found: it is stale once they changed
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  constexpr uint32_t kEnd = UINT32_MAX;
  Symbol* const symbols = out.data() + first;
  const auto n = static_cast<uint32_t>(out.size() - first);
  std::vector<uint32_t> previous(n), next(n);
  std::vector<Candidate> found;
  const auto candidate = [&](uint32_t i, auto keep) {
    const Merge* merge = merges_.find(symbols[i].id, symbols[next[i]].id);
    if (merge) keep(Candidate{merge->rank, i, symbols[i].id, symbols[next[i]].id});
  };
  for (uint32_t i = 0; i < n; ++i) {
    previous[i] = i ? i - 1 : kEnd;
    next[i] = i + 1 < n ? i + 1 : kEnd;
  }
  for (uint32_t i = 0; i + 1 < n; ++i) candidate(i, [&](const Candidate& c) { found.push_back(c); });
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>(), std::move(found));
  const auto enqueue = [&](const Candidate& c) { queue.push(c); };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const uint32_t at = top.position, right = next[at];
    if (symbols[at].id != top.left || right == kEnd || symbols[right].id != top.right) continue;
    symbols[at].id = merges_.find(top.left, top.right)->id;
    symbols[at].end = symbols[right].end;
    symbols[right].id = -1;  // gone
    next[at] = next[right];
    if (next[at] != kEnd) {
      previous[next[at]] = at;
      candidate(at, enqueue);
    }
    if (previous[at] != kEnd) candidate(previous[at], enqueue);
  }
  out.erase(std::remove_if(out.begin() + first, out.end(), [](const Symbol& s) { return s.id < 0; }), out.end());
}

}  // namespace satin::tokenizer
