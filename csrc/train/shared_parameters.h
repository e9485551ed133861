// Parameters that are not quantized weights, shared by the processes of a job: sums of their gradients, and whole
// copies of those that are owned by rows.
#pragma once
#include <map>
#include <vector>

#include "dist/sharing.h"
#include "nn/parameters.h"

namespace satin::train {

class SharedParameters {
 public:
  /// `parameters` and `sharing` outlive this. Fills the whole copies.
  SharedParameters(const std::vector<nn::Parameter>& parameters, const dist::Sharing& sharing);

  /// Starts to sum the large gradients of a block's parameters (-1: all that no block has), after the step's last
  /// backward through it.
  void start_reduce(int64_t block);
  /// Starts to sum the gradients of some parameters, when they are whole.
  void start_reduce(const std::vector<const nn::Parameter*>& parameters);
  /// Starts the sums of all other gradients that there are, when the step's backward passes are done. Gradients that
  /// come after (of quantizers: HeldWeights::fold) are taken for sums already, and may be made while these are under
  /// way.
  void start_rest();
  /// From here on each gradient is that of all processes (of its rows).
  void finish_reduces();
  /// Whole copies from the rows, after an update.
  void gather();

 private:
  struct Reduce {
    std::vector<const nn::Parameter*> parameters;
    bool split;
    dist::GradientReduce sums;
  };
  const dist::Sharing& sharing_;
  std::map<int64_t, std::vector<const nn::Parameter*>> blocks_;
  std::vector<Reduce> reduces_;
  std::vector<const nn::Parameter*> gathered_;
};

}  // namespace satin::train
