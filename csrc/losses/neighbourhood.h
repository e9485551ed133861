// Neighbourhood distillation: steps from the clean text into neighbouring contexts, where the losses are then taken.
// Each next token is replaced, with probability `rate`, by x' ~ softmax(top-k(z_t) / temperature), z_t the source's
// logits at the position before it; a share of the replaced tokens may be any of the vocabulary instead. Source: own
// formulation on the neighbourhood of arXiv 2605.08894.
//
// A draw is a pure function of (seed, sample id, position): ranks, micro-batches, order and resume do not change it
// (nor the device, but for rounding of the logits where two ids share a border of the distribution). A sample id names
// one reading of a window: in the next epoch the window comes with another id, and is replaced elsewhere.
//
// Never replaced: a window's first token, a document's first token, special ids (BOS, EOS, padding, ...). Never drawn:
// special ids and padding of the vocabulary, taken out before the top k is chosen.
//
// The rate may be scheduled. Each position has one number that it is compared with, so with depth 1 a larger rate
// replaces what a smaller one does, by the same draws, and more (with walks, a new one may cover another's start).
//
// placement branch: the same draws, but the text stays as it is and each chosen position's neighbour stands beside it
// (losses/branches.h); `rate` is then the probability that a position has a scored branch.
//
// depth d > 1 walks on: a replaced token starts a walk over up to d tokens in a row, each drawn from the source's
// logits on the tokens replaced so far. A walk ends before a document's first token, a special id and the window's end;
// inside a walk no other starts, so `rate` is then the probability that a walk starts at a token outside walks.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "config/schema.h"

namespace satin::losses {

/// What the draws are a function of. Shapes: B windows, T tokens.
struct CleanWindows {
  at::Tensor tokens;                 ///< [B, T] int64, on the CPU
  at::Tensor document_starts;        ///< [B, T] bool, on the CPU; undefined: windows are single documents
  std::vector<uint64_t> sample_ids;  ///< [B] global sample index, counted on from epoch to epoch
};

/// Logits by their factors, so that only the chosen positions go through the head.
struct SourceStates {
  at::Tensor hidden;  ///< [B, T, H] output of the final norm, compute dtype
  at::Tensor head;    ///< [V, H], same dtype
};
/// The source (teacher or student) on tokens [B, T] (on the compute device). Called once for each level of the walk
/// that draws anything from it, and not for random tokens.
using Source = std::function<SourceStates(const at::Tensor& tokens)>;

/// The teacher's stored candidates at every position of the clean text, instead of a forward of it.
struct StoredCandidates {
  at::Tensor ids;     ///< [B, T, k] int32
  at::Tensor logits;  ///< [B, T, k], falling, from any origin; -inf: none
  bool defined() const { return ids.defined(); }
};

/// Whether the configuration draws from `source` ("teacher" or "student"): not so at rate 0 or where all is random.
bool draws_from(const config::Neighbourhood& config, const std::string& source);

class Neighbourhood {
 public:
  /// num_tokens: the vocabulary without padding. special_ids: never replaced, never drawn. chunk_tokens: see
  /// HeadChunks. Throws UserError naming the key of the configuration.
  Neighbourhood(const config::Neighbourhood& config, int64_t num_tokens, std::vector<int64_t> special_ids,
                uint64_t seed, int64_t chunk_tokens = 0);

  /// Whether anything is ever replaced: the rate is above 0 at some point of training.
  bool enabled() const { return config_.rate > 0; }
  /// The probability at `progress` = steps done / all steps.
  double rate_at(double progress) const;
  /// Whether anything is drawn from a source's logits.
  bool needs_source() const { return draws_from(config_, "teacher") || needs_student(); }
  /// Whether that source is the student itself.
  bool needs_student() const { return draws_from(config_, "student"); }

  /// tokens: clean.tokens on the compute device, [B, T]. Returns them with neighbours in place, a new tensor; the same
  /// tensor, without a call of the source, when nothing is replaced (rate 0). Does not wait for the device.
  /// `stored`: candidates at the clean text, from which a walk's first token is drawn when the source is the teacher
  /// (special ids taken out, then the best top_k; a position without any keeps its token).
  /// `progress` as in rate_at(). always_reads: the source is called num_source_calls() times whatever was drawn, so
  /// that processes whose sources work together stay in step.
  at::Tensor perturb(const at::Tensor& tokens, const CleanWindows& clean, const Source& source,
                     const StoredCandidates& stored = {}, double progress = 1, bool always_reads = false) const;
  /// Whether neighbours stand beside the text at this point of training.
  bool branches(double progress) const { return config_.placement == "branch" && rate_at(progress) > 0; }
  /// [B, T] bool on the CPU: the positions whose tokens perturb() draws.
  at::Tensor chosen(const CleanWindows& clean, double progress) const;
  /// How often perturb() calls the source at most: once a level, but for the first where its candidates are stored.
  int64_t num_source_calls(double progress, bool stored) const;

 private:
  struct Level;
  std::vector<Level> plan(const CleanWindows& clean, double rate) const;
  at::Tensor draw(const SourceStates& states, const at::Tensor& rows, const at::Tensor& uniforms) const;
  at::Tensor draw_chunk(at::Tensor logits, const at::Tensor& uniforms, const at::Tensor& excluded) const;
  at::Tensor draw_stored(const StoredCandidates& stored, const at::Tensor& rows, const at::Tensor& uniforms,
                         const at::Tensor& clean) const;
  /// Which of k candidates [n, k], falling, each uniform [n] picks: [n, 1].
  at::Tensor pick(const at::Tensor& logits, const at::Tensor& uniforms) const;

  config::Neighbourhood config_;
  int64_t num_tokens_;
  std::vector<bool> special_;      ///< by id
  std::vector<int64_t> excluded_;  ///< special ids below num_tokens
  std::vector<int64_t> drawable_;  ///< all other ids
  uint64_t seed_;
  int64_t chunk_tokens_;
};

}  // namespace satin::losses
