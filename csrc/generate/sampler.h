// The next token from logits.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace satin::generate {

struct SamplingOptions {
  double temperature = 0;  ///< 0: the most likely token
  int64_t top_k = 0;       ///< only the k most likely; 0: all
  double top_p = 1;        ///< only the fewest tokens that hold this probability (Holtzman et al. 2020); after top_k
  uint64_t seed = 0;
};

/// Throws UserError naming the option that is out of range.
void check(const SamplingOptions& options);

/// logits [B, V] fp32 or fp64 -> ids [B] int64 on the same device, without synchronising. The draw is a pure function
/// of the logits, the seed, `step` (number of the new token) and the row.
at::Tensor sample(const at::Tensor& logits, const SamplingOptions& options, int64_t step);

}  // namespace satin::generate
