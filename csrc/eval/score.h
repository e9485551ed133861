// Teacher-forced scores of a decoder: what every task is built on.
#pragma once
#include <cstdint>
#include <vector>

#include "dist/communicator.h"
#include "models/decoder.h"

namespace satin::eval {

/// For every position t >= 1 of a sequence: the natural log-probability of token t given the tokens before it, and
/// whether token t is the argmax (ties to the lower id).
struct Scores {
  std::vector<float> log_prob;  ///< [T - 1]
  std::vector<bool> is_argmax;  ///< [T - 1]
};

struct ScoreOptions {
  int64_t batch_tokens =
      8192;  ///< tokens in one forward (sequences are padded on the right, which causal attention cannot see)
  int64_t chunk_tokens = 1024;  ///< tokens whose vocabulary logits are in memory at a time
  bool argmax = false;          ///< fill is_argmax (argmax)
};

/// What tasks read of rows of logits, N of them.
struct RowScores {
  at::Tensor log_prob;  ///< [N] fp32: of the target
  at::Tensor argmax;    ///< [N] int64 the best id (ties to the lower); undefined unless asked for
};
/// hidden [N, H], targets [N] int64; at most `chunk_tokens` rows of logits in memory. `num_tokens`: ids below it can be
/// the argmax (0: all).
RowScores score_rows(models::Decoder& decoder, const at::Tensor& hidden, const at::Tensor& targets,
                     const ScoreOptions& options, int64_t num_tokens = 0);

/// tokens [B, T] int64 -> of each but the first, on the CPU: log-probability [B, T - 1] fp32, and whether it is the
/// argmax, bool (undefined unless asked for). No gradients.
std::pair<at::Tensor, at::Tensor> score_batch(models::Decoder& decoder, const at::Tensor& tokens,
                                              const ScoreOptions& options);

/// Scores sequences (each of at least 2 tokens), in order; several ranks share them, and each gets all scores.
std::vector<Scores> score(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& sequences,
                          const ScoreOptions& options = {}, dist::Communicator& ranks = *dist::Communicator::alone());

}  // namespace satin::eval
