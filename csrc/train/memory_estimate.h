// How much device memory a run will need, before it starts.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config/schema.h"
#include "models/decoder.h"

namespace satin::train {

/// Bytes by part, in the order they are printed: weights, gradients, optimizer, teacher, activations, loss, workspace;
/// codes, hidden and lgr where there are any.
struct MemoryEstimate {
  std::vector<std::pair<std::string, int64_t>> parts;
  int64_t total_bytes() const;
};

/// Counted from the shapes and what each operator keeps for its backward. `teacher` may be null; no tensor is read.
MemoryEstimate estimate_memory(const config::Config& config, const models::Decoder& student,
                               const models::ModelConfig* teacher, at::ScalarType compute_dtype);

std::string memory_text(const MemoryEstimate& estimate);

}  // namespace satin::train
