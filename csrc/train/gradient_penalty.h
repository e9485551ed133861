// LGR: a penalty on how steeply the loss rises with a layer's input, in training.
//   R = mean over sequences of (1/N) sum_i |g_i|^2,   g_i = d f / d x_i,   L = losses + weight * R
// f      mean cross-entropy of a sequence over its scored predictions, on the clean text
// x_i    input of layer `layer` at token i; N tokens
// Source arXiv 2605.08894 (its layer is 1); per sequence and averaged over sequences is our own formulation.
//
// Its gradient needs second derivatives, taken by a central difference along g (the shift is a constant, x is not):
//   grad R = mean of (1/N) (1/e) [grad f(x + e g) - grad f(x - e g)],   e = step * rms(x) / rms(g)
// Three passes in fp32 whatever training computes in (bf16 does not resolve the difference): one to the layer's input
// alone for g, two in full. Rounding of weights is straight-through; activations keep the rounding residuals of the
// first pass (ops/act_quant.h).
//
// Where processes share the step, the sequences, R and its gradient are those of one process. All of them run equally
// many passes: one that has no such sequence runs on text of which nothing is scored.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "models/decoder.h"
#include "quant/registry.h"
#include "train/first_sequences.h"
#include "train/penalty_weight.h"
#include "train/shared_parameters.h"

namespace satin::train {

struct PenaltyResult {
  at::Tensor value;   ///< R, unweighted; 0-dim, on the device
  double weight = 0;  ///< what it was multiplied with: ramp and guard included
  double ratio = 0;   ///< of its gradient's norm to that of the losses (weights, norms, biases: without quantizers)
};

/// Whether the configuration asks for it.
inline bool penalises(const config::GradientPenalty& lgr) { return lgr.weight > 0 || lgr.gradient_ratio > 0; }

class GradientPenalty {
 public:
  /// `student` and `quantized`, its quantized layers, outlive it. chunk_tokens: see losses/head.h. Throws UserError
  /// when the student has no such layer. `sharing`: of the student among processes, which all make this and call it
  /// together; `first_sequence`: in the step, of those that this process runs.
  GradientPenalty(models::Decoder& student, const quant::Registry& quantized, const config::GradientPenalty& config,
                  int64_t chunk_tokens, const dist::Sharing& sharing = dist::not_shared(), int64_t first_sequence = 0);
  GradientPenalty(const GradientPenalty&) = delete;
  GradientPenalty& operator=(const GradientPenalty&) = delete;

  /// Whether step `step` (from 0) has the penalty, at `progress` = step / all steps.
  bool applies(int64_t step, double progress) const;

  /// With the gradients of all other losses (of all processes) in the student's parameters, adds the penalty's.
  /// `micro_batches`: this process's part of the step. Where the penalty's gradient is not finite or beyond
  /// PenaltyWeight::kMostRatio, it is left out or scaled back with a warning that names the step. Empty when no
  /// sequence has a scored prediction. How the step is split into micro-batches and among processes changes results by
  /// rounding only, and every process gets the same result. Memory: a second set of gradients. Waits for the device,
  /// once.
  std::optional<PenaltyResult> add(const std::vector<data::Batch>& micro_batches, int64_t step, double progress);

  /// The unweighted penalty's value; its gradient is added to the parameters' (which, where processes share them, must
  /// have none yet). What add() calls.
  at::Tensor accumulate(const std::vector<data::Batch>& micro_batches) { return accumulate(chosen(micro_batches)); }

  PenaltyWeight& weight() { return weight_; }

 private:
  struct Sequences;
  struct Difference;
  FirstSequences chosen(const std::vector<data::Batch>& micro_batches) const;
  at::Tensor accumulate(const FirstSequences& chosen);
  Sequences on_device(const data::Batch& batch) const;
  Difference shifts(const Sequences& sequences, int64_t num_sequences);
  void run_shifted(const Sequences& sequences, const Difference& difference, double sign);

  models::Decoder& student_;
  const quant::Registry& quantized_;
  config::GradientPenalty config_;
  int64_t chunk_tokens_;
  dist::Sharing sharing_;
  int64_t first_sequence_;
  SharedParameters shared_;
  PenaltyWeight weight_;
  int num_warnings_ = 0;
};

/// A line for the log and the dry run.
std::string penalty_text(const config::GradientPenalty& lgr, int64_t sequences_per_step, int64_t num_steps);

}  // namespace satin::train
