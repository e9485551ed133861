// One training step: micro-batches in, losses out, gradients left in the student's parameters.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "data/batch.h"
#include "losses/branches.h"
#include "losses/neighbourhood.h"
#include "losses/objective.h"
#include "models/decoder.h"
#include "quant/registry.h"
#include "train/lookup_gradient.h"
#include "train/shared_parameters.h"

namespace satin::train {

struct StepResult {
  std::map<std::string, at::Tensor> losses;  ///< mean over scored tokens by loss name, unweighted; 0-dim, on the device
  at::Tensor total;                          ///< weighted sum of them, 0-dim
  int64_t num_tokens = 0;                    ///< of the text
  int64_t num_scored = 0;                    ///< of them with a loss
  int64_t num_branches = 0;                  ///< with a loss, beside the text
                                             // the counts are those of all processes
  bool stopped = false;                      ///< a process asked to stop: nothing was done
};

struct StepOptions {
  int64_t chunk_tokens = 0;  ///< see losses/head.h
  double damping = 0;        ///< of oscillations, see quant/held_weights.h
  bool recompute = false;    ///< activation checkpointing, see models/recompute.h
};

class TrainingStep {
 public:
  /// `quantized`: the student's quantized layers. `teacher` may be null when the objective and the neighbourhood need
  /// none. All outlive the step. `sharing`: of the student among processes; each runs its own micro-batches of the
  /// step, equally many, and gets the gradients of all.
  TrainingStep(models::Decoder& student, const quant::Registry& quantized, models::Decoder* teacher,
               const losses::Objective& objective, const losses::Neighbourhood& neighbourhood,
               const StepOptions& options = {}, const dist::Sharing& sharing = dist::not_shared());

  /// `progress` in [0, 1). Losses are means over the scored tokens of all micro-batches together, so that how the
  /// step is split into micro-batches changes results by rounding only. With branch tokens (losses/branches.h) those of
  /// the teacher are means over text and branches, each token alike, and cross-entropy, of which a branch has no
  /// target, over the text. A branch is scored where its token of the text is. Does not wait for the device.
  /// Throws UserError when no token of the step is scored.
  /// Batches with a stored teacher bring the neighbours, and the losses' teacher where nothing is perturbed. Where they
  /// bring its perturbed copies too, these are the contexts. Losses in the result are this process's part of the sum.
  /// stop: this process would rather end than step; if any would, none does (StepResult::stopped).
  StepResult run(const std::vector<data::Batch>& micro_batches, double progress, bool stop = false);

  /// After an update: whole copies of what processes own by rows.
  void parameters_changed() { shared_.gather(); }

 private:
  struct Context;
  struct Now;
  bool losses_are_stored(const data::Batch& batch) const;
  Context read(const data::Batch& batch, double progress);
  /// Counts of this process, and whether it asks to stop -> of all; what each looks up -> lookups_.
  void count_all(const data::Batch& last, double progress, StepResult& result);
  void run_micro_batch(const data::Batch& batch, const losses::ScoredBranches& branches, const Now& now, bool last,
                       StepResult& result);

  at::ScalarType wide_dtype() const;  ///< of losses: fp32, or fp64 when compute is fp64

  models::Decoder& student_;
  const quant::Registry& quantized_;
  models::Decoder* teacher_;
  const losses::Objective& objective_;
  const losses::Neighbourhood& neighbourhood_;
  const StepOptions options_;
  const dist::Sharing& sharing_;
  SharedParameters shared_;
  LookupGradient lookups_;
};

}  // namespace satin::train
