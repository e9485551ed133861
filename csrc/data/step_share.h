// Which samples of a step a process reads, and in which micro-batches. The step's samples are the same for any number
// of processes.
#pragma once
#include <cstdint>

namespace satin::data {

struct StepShare {
  int64_t samples_per_step = 1;
  int64_t micro_batch_size = 1;
  int64_t rank = 0, size = 1;

  struct Range {
    int64_t first, count;
  };
  /// Consecutive samples, one more or less than other ranks'.
  Range own() const;
  /// The same for every rank, so that their collectives meet.
  int64_t num_micro_batches() const;
  /// Samples of micro-batch i; none where a rank has fewer than others.
  Range micro_batch(int64_t i) const;
};

}  // namespace satin::data
