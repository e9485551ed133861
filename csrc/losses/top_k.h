// The k largest logits of every row, with ties to the lower id. (at::topk picks among equals as it likes, and
// differently on the CPU and on CUDA.)
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::losses {

struct TopK {
  at::Tensor values;  ///< [N, k] falling
  at::Tensor ids;     ///< [N, k] int64; equal values in rising order of id
};

/// logits [N, V] (V <= 2^24), 1 <= k <= V. Does not wait for the device.
TopK top_k(const at::Tensor& logits, int64_t k);

}  // namespace satin::losses
