// The sequences of a step that the gradient penalty reads: its first ones, whichever process has them.
#pragma once
#include <vector>

#include "data/batch.h"
#include "dist/communicator.h"

namespace satin::train {

struct FirstSequences {
  /// Micro-batches of which a process has such a sequence: as many on each. Where this one has none, a sequence of
  /// which nothing is scored.
  std::vector<data::Batch> batches;
  int64_t num_scored = 0;  ///< sequences with a scored prediction, of all processes
};

/// The first `most` sequences of a step (0: all), the same ones however it is split into micro-batches and dealt out.
/// `micro_batches`: this process's part of the step, equally many on each; `first`: their first sequence in the step.
FirstSequences first_sequences(const std::vector<data::Batch>& micro_batches, int64_t most, int64_t first,
                               dist::Communicator& world);

}  // namespace satin::train
