// A linear layer with a fake-quantized weight: y = x Q(W)^T + b.
#pragma once
#include "nn/linear_factory.h"
#include "quant/quantizer.h"

namespace satin::quant {

class QuantLinear : public nn::Linear {
 public:
  /// Adds "<name>.weight", ".bias" when asked, and the quantizer's parameters. The scheme fits in_features (see
  /// policy.h).
  QuantLinear(const nn::LinearSpec& spec, const Scheme& scheme, nn::ParameterStore& store);

  at::Tensor forward(const at::Tensor& x) override;
  at::Tensor weight(at::ScalarType dtype) override;
  at::Tensor weight() override { return weight(compute_dtype_); }

  const std::string& name() const { return name_; }
  const Scheme& scheme() const { return quantizer_.scheme(); }
  /// The full-precision weight [out, in], a parameter.
  const at::Tensor& master_weight() const { return weight_; }
  /// Undefined tensors where the scheme learns none.
  const QuantizerState& learned_state() const { return quantizer_.learned_state(); }
  /// The scales and zero points of the next forward.
  QuantizerState state() const { return quantizer_.state(weight_); }
  /// Call when the weight has been loaded and before the first forward. Throws UserError for a weight that is not
  /// finite.
  void initialise() { quantizer_.initialise(weight_); }

  /// From here on weight() returns `quantized` where its dtype is asked for; undefined: computed on every use again.
  /// For held_weights.h.
  void hold(const at::Tensor& quantized) { held_ = quantized; }
  const ops::FakeQuantGrid& grid() const { return quantizer_.grid(); }

 private:
  std::string name_;
  at::Tensor weight_, bias_;
  Quantizer quantizer_;
  at::ScalarType compute_dtype_;
  at::Tensor held_;
};

}  // namespace satin::quant
