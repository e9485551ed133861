// Every quantized weight of a model, made once and shared by all uses until the parameters change: in training by the
// micro-batches of a step, in evaluation by all batches. On CUDA up to 256 weights share a launch.
//
//   HeldWeights held(registry, compute_dtype, /*trainable=*/true);
//   for each micro-batch: forward, backward, held.collect();
//   held.fold();
//
// The gradients of weights, scales and zero points are those of one fake_quant a use: the mask does not depend on the
// gradient, and the others are linear in it, so the sum over micro-batches comes first and one backward after.
#pragma once
#include <vector>

#include "quant/registry.h"

namespace satin::quant {

class HeldWeights {
 public:
  /// Quantizes every layer of the registry into `dtype`, which the layers then multiply with until this object ends.
  /// The parameters must not change meanwhile. trainable: gradients are left in the held weights for collect().
  HeldWeights(const Registry& registry, at::ScalarType dtype, bool trainable);
  ~HeldWeights();
  HeldWeights(const HeldWeights&) = delete;
  HeldWeights& operator=(const HeldWeights&) = delete;

  /// After a micro-batch's backward: adds its gradients up, in fp32 from the second on.
  void collect();
  /// Adds the sum's gradients to those of the master weights, scales and zero points. Layers without any are left out
  /// (their weight was not used, or in another dtype, which has its own path).
  /// damping: what oscillation damping (Nagel et al. 2022, eq. 8) adds, 2 damping (w - Q(w)), to the gradient of each
  /// weight that has one.
  void fold(double damping = 0);

 private:
  struct Layer {
    QuantLinear* linear;
    QuantizerState state;
    at::Tensor held, gradient;
  };
  /// Layers that one kernel can serve: all but the group size is equal.
  struct Batch {
    ops::FakeQuantGrid grid;
    std::vector<Layer> layers;
  };
  void fold_slice(Batch& batch, size_t begin, size_t end, double damping);
  /// Fills the states of layers that learn none.
  static void read_data_scales(Batch& batch);
  static ops::FakeQuantBatch inputs(const Batch& batch, const std::vector<const Layer*>& layers);

  std::vector<Batch> batches_;
};

}  // namespace satin::quant
