// How much of a teacher's smoothness a student has kept: gradients of the loss with respect to its inputs, what the
// teacher thinks of the student's candidates, and how many continuations remain. Source: arXiv 2605.08894 for the
// gradient norms and the neighbourhood; thresholds, D_k and the tree's estimator are our own formulation (see
// README.md for the definitions).
#pragma once
#include <array>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "eval/decoding_tree.h"

namespace satin::eval {

struct SmoothnessOptions {
  int64_t sequence_length = 1024;
  int64_t limit = 0;        ///< at most so many windows; 0: all
  int64_t num_tokens = 0;   ///< the vocabulary without padding; 0: all of the model's
  int64_t num_roots = 256;  ///< of the decoding trees; 0: none
  uint64_t seed = 0;
  int64_t batch_tokens = 2048;  ///< tokens in one forward and backward pass (one window at least)
  int64_t chunk_tokens = 256;   ///< tokens whose vocabulary logits are in memory at a time (about six buffers)
};

inline constexpr int64_t kNumCandidates = 40;
/// Thresholds of an effective candidate; the last is relative to the teacher's largest probability.
inline constexpr std::array<double, 3> kThetas = {1e-2, 1e-3, 0.05};

/// Means over all positions of the text (a window's last one too: candidates need no target, its gradient is 0).
struct ModelSmoothness {
  std::vector<float> x0, x1;  ///< norms of each token's gradient (input_gradients.h); x1 empty for one layer
  double entropy = 0;         ///< of the next token, nats
  double nucleus_size = 0;    ///< tokens that hold 0.9 of the probability
  // With a teacher:
  std::vector<double> neighbour_nll;     ///< D_k = mean of -ln p_teacher(the model's k-th candidate)
  std::array<double, 3> effective = {};  ///< candidates with p_teacher >= kThetas
  double mass_on_teacher_top = 0;        ///< probability that the model gives to the teacher's candidates
  std::vector<Branches> paths;           ///< through its decoding tree
};

struct Smoothness {
  ModelSmoothness student;
  std::optional<ModelSmoothness> teacher;
  Windows windows;
  TreeRoots roots;
  SmoothnessOptions options;
};

/// The models' vocabularies share the first num_tokens ids; `teacher` may be null (the model's own numbers only) or the
/// student itself; several ranks share the work (in_batches.h). Memory: one batch, a few chunks of logits, and 16 bytes
/// a token for the norms. Throws UserError for a text of fewer than 2 tokens, or a model whose gradients are not
/// finite.
Smoothness smoothness(models::Decoder& student, models::Decoder* teacher, const std::vector<int32_t>& tokens,
                      const SmoothnessOptions& options = {}, dist::Communicator& ranks = *dist::Communicator::alone());

/// All of it with its protocol; numbers as compare() writes them, D_k and histograms as arrays for plots.
nlohmann::json to_json(const Smoothness& result, const models::Decoder& decoder, const std::string& documents);
/// A table of to_json's numbers, with a line of explanation each.
std::string smoothness_table(const nlohmann::json& result);
/// Roots and draws, so that another program can walk the same trees, with the branches that were found.
nlohmann::json dump_roots(const Smoothness& result);

}  // namespace satin::eval
