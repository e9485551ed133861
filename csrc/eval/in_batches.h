// A task's work in batches, dealt out over the processes of a job.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace satin::eval {

/// What a batch adds to a task's results, in an order of the task's own. Floats, counts and flags are exact.
using Numbers = std::vector<double>;

/// Windows, sequences or roots [first, first + number).
struct Range {
  int64_t first, number;
};
/// [0, count) in batches of `at_once` (at least 1); the last may be smaller.
std::vector<Range> even_batches(int64_t count, int64_t at_once);

/// Calls `work` for every batch, on one rank each, and then `add`, on every rank, with what it returned, in the
/// batches' order. A batch is read as one process reads it, so the results have the bits of one process (of as many
/// threads). Every rank holds the whole model, and `work` calls nothing collective. Shows progress: "perplexity: window
/// 8 of 64". What is thrown on one rank is thrown on all (dist/together.h), within a batch; so is InterruptedError,
/// when a signal asked one to stop.
void in_batches(dist::Communicator& ranks, const std::string& what, const std::vector<Range>& batches,
                const std::function<Numbers(Range)>& work, const std::function<void(Range, const Numbers&)>& add);

}  // namespace satin::eval
