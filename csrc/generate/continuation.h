// What follows sequences of tokens, a token of each at a time.
#pragma once
#include <memory>
#include <vector>

#include "models/decoder.h"

namespace satin::generate {

class Continuation {
 public:
  virtual ~Continuation() = default;
  /// ids [n] int64 on the model's device, the next token of each sequence -> logits [n, V] of those after.
  virtual at::Tensor next(const at::Tensor& ids) = 0;
  /// Goes on with these alone, by their place among those that there are.
  virtual void keep(const std::vector<int64_t>& places) = 0;
};

struct Begun {
  at::Tensor logits;  ///< [n, V] of the first tokens that follow
  std::unique_ptr<Continuation> rest;
};
/// Reads the prompts one by one, so that none is padded; none is empty. At most num_new tokens will follow each.
/// Where the device and dtype have it (Decoder::can_step), the rest is one CUDA graph that is launched for each token;
/// `in_place`: on the CPU too the caches have their whole size at once.
Begun begin(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts, int64_t num_new,
            bool in_place = false);

}  // namespace satin::generate
