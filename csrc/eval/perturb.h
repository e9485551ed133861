// Text and embeddings as a careless user, a scanner or a noisy channel would deliver them. Every draw is a pure
// function of (seed, window, position), so batches do not change it, and all models read the same text:
// hash = counter_hash({stream, seed, window[, position]}), to_uniform(hash) or to_index(hash, n) of core/random.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace satin::eval {

class Perturb {
 public:
  /// Independent numbers for each question asked.
  enum Stream : uint64_t {
    kReplaces = 0x70657274,  ///< of a position: replaced where the uniform number is below the rate
    kReplacement,            ///< of a position: index among the other ordinary ids, rising
    kOnePosition,            ///< index among the window's positions with ordinary tokens
    kOneReplacement,         ///< as kReplacement
    kNoise,                  ///< seed of torch's CPU generator
  };

  /// num_tokens: the vocabulary without padding; special_ids (BOS, EOS, ...) are never replaced and never drawn.
  /// Throws UserError when fewer than two other tokens are left.
  Perturb(int64_t num_tokens, const std::vector<int32_t>& special_ids, uint64_t seed);

  /// inputs [B, T] int64 on the CPU, windows first_window, first_window + 1, ...: each token that is not special
  /// becomes, with probability `rate`, another one, all equally likely. What a rate replaces a higher rate replaces
  /// too.
  at::Tensor substitute(const at::Tensor& inputs, int64_t first_window, double rate) const;

  struct OneToken {
    at::Tensor inputs;               ///< [B, T]
    std::vector<int64_t> positions;  ///< [B] what was replaced; T when a window has special tokens only
  };
  /// One token of each window, at a position drawn uniformly from those that are not special, becomes another.
  OneToken one_token(const at::Tensor& inputs, int64_t first_window) const;

  /// Standard Gaussian [T, H] fp32 on the CPU: torch's generator, seeded with a hash of (seed, window).
  at::Tensor noise(int64_t window, int64_t num_tokens, int64_t hidden_size) const;

 private:
  bool is_special(int64_t id) const;
  int64_t another(int64_t id, uint64_t hash) const;

  uint64_t seed_;
  std::vector<int64_t> drawable_;  ///< ids that are not special, rising
};

}  // namespace satin::eval
