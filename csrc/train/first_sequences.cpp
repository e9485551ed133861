#include "train/first_sequences.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace satin::train {
namespace {

data::Batch first_of(const data::Batch& batch, int64_t count) {
  const int64_t read = std::max<int64_t>(count, 1);
  data::Batch part;
  part.tokens = batch.tokens.narrow(0, 0, read);
  part.loss_mask = batch.loss_mask.narrow(0, 0, read);
  if (count == 0) part.loss_mask = at::zeros_like(part.loss_mask);
  if (batch.document_ids.defined()) part.document_ids = batch.document_ids.narrow(0, 0, read);
  part.idle = count == 0;
  return part;
}

}  // namespace

FirstSequences first_sequences(const std::vector<data::Batch>& micro_batches, int64_t most, int64_t first,
                               dist::Communicator& world) {
  int64_t left = most > 0 ? std::max<int64_t>(0, most - first) : std::numeric_limits<int64_t>::max();
  std::vector<data::Batch> parts;
  std::vector<double> counts{0};  // scored sequences, then the chosen ones of each micro-batch
  for (const data::Batch& batch : micro_batches) {
    const int64_t count = batch.idle ? 0 : std::min(left, batch.tokens.size(0));
    left -= count;
    parts.push_back(first_of(batch, count));
    counts[0] += static_cast<double>(parts.back().loss_mask.any(1).sum().item<int64_t>());
    counts.push_back(static_cast<double>(count));
  }
  counts = world.sum(counts);
  FirstSequences chosen;
  chosen.num_scored = static_cast<int64_t>(counts[0]);
  for (size_t i = 0; i < parts.size(); ++i)
    if (counts[i + 1] > 0) chosen.batches.push_back(std::move(parts[i]));
  return chosen;
}

}  // namespace satin::train
