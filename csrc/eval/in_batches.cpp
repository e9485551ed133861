#include "eval/in_batches.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "dist/together.h"

namespace satin::eval {
namespace {

std::string to_bytes(const Numbers& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double)};
}

Numbers from_bytes(const std::string& bytes) {
  Numbers numbers(bytes.size() / sizeof(double));
  std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(double));
  return numbers;
}

}  // namespace

std::vector<Range> even_batches(int64_t count, int64_t at_once) {
  std::vector<Range> batches;
  for (int64_t first = 0; first < count; first += batches.back().number)
    batches.push_back({first, std::min(std::max<int64_t>(1, at_once), count - first)});
  return batches;
}

void in_batches(dist::Communicator& ranks, const std::string& what, const std::vector<Range>& batches,
                const std::function<Numbers(Range)>& work, const std::function<void(Range, const Numbers&)>& add) {
  // A batch for each rank at a time: all have about the same work, and none goes on for long after another's error.
  const auto size = static_cast<size_t>(ranks.size()), rank = static_cast<size_t>(ranks.rank());
  for (size_t begin = 0; begin < batches.size(); begin += size) {
    const size_t end = std::min(batches.size(), begin + size);
    const auto results = dist::gather_of(ranks, [&] {
      if (interrupt_signal()) throw InterruptedError("stopped by a signal during evaluation; nothing to save");
      return begin + rank < end ? to_bytes(work(batches[begin + rank])) : std::string();
    });
    for (size_t i = begin; i < end; ++i) add(batches[i], from_bytes(results[i - begin]));
    const Range &last = batches[end - 1], &all = batches.back();
    progress(cat(what, " ", last.first + last.number, " of ", all.first + all.number));
  }
  end_progress();
}

}  // namespace satin::eval
