// Hidden-state distillation (losses/hidden_states.h) of a micro-batch: what the student's pass keeps, and the teacher's
// pass, which comes after it, makes of it. Not one of the teacher's states outlives its layer.
#pragma once
#include <vector>

#include "config/schema.h"
#include "models/decoder.h"

namespace satin::train {

class ComparedStates {
 public:
  ComparedStates(const config::HiddenStates& config, int64_t num_layers);

  bool enabled() const { return config_.weight != 0; }
  /// `options`, and keeps the states to compare, with their graph.
  models::ForwardOptions of_student(models::ForwardOptions options);
  /// `options`, and compares. weights [B, T]: of the context's tokens, 1 / all scored ones or 0.
  models::ForwardOptions of_teacher(models::ForwardOptions options, const at::Tensor& weights);
  /// The mean over layers, unweighted; 0-dim.
  at::Tensor value() const;
  /// The student's states and the weighted loss's gradients of them, as more roots of the backward pass. Once: the
  /// gradients are scaled where they are.
  void add_to(std::vector<at::Tensor>& roots, std::vector<at::Tensor>& gradients);

 private:
  bool compares(int64_t layer) const { return config_.layers == "all" || layer + 1 == num_layers_; }

  config::HiddenStates config_;
  int64_t num_layers_;
  std::vector<at::Tensor> student_, gradients_;  ///< [B, T, H] a compared layer
  at::Tensor sum_;
};

}  // namespace satin::train
