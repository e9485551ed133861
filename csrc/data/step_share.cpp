#include "data/step_share.h"

#include <algorithm>

#include "core/portion.h"

namespace satin::data {

StepShare::Range StepShare::own() const {
  const int64_t first = portion_begin(samples_per_step, size, rank);
  return {first, portion_begin(samples_per_step, size, rank + 1) - first};
}

int64_t StepShare::num_micro_batches() const {
  const int64_t most = (samples_per_step + size - 1) / size;
  return (most + micro_batch_size - 1) / micro_batch_size;
}

StepShare::Range StepShare::micro_batch(int64_t i) const {
  const Range mine = own();
  const int64_t begin = std::min(i * micro_batch_size, mine.count);
  return {mine.first + begin, std::min(begin + micro_batch_size, mine.count) - begin};
}

}  // namespace satin::data
