// What some schemes do around a linear layer's product, whether its weight is fake-quantized or dequantised:
//   y = LN(Q_a(x * h) W^T) + b
// Q_a       activations in 8 bits (Scheme::activations), straight through; kernels/act_quant.h
// h, LN     OneBit only: the value vector "<module>.input_vector" [in] of the inputs and a layer norm without affine
//           part over the outputs. The other value vector, of the outputs, is the scale of each row.
// Source    Xu et al. 2024 (OneBit), eq. 3 and 4.
#pragma once
#include "nn/linear_factory.h"
#include "quant/quant_linear.h"

namespace satin::quant {

/// Whether a layer of this scheme is wrapped.
bool needs_wrapping(const Scheme& scheme);
/// Whether a stored tensor's name is that of a wrapper's parameter (but its bias).
bool is_wrapper_parameter(const std::string& name);
/// What the wrapper asks of the layer inside: no bias where a norm comes between.
nn::LinearSpec inner_spec(const nn::LinearSpec& spec, const Scheme& scheme);

class WrappedLinear : public nn::Linear {
 public:
  /// Adds "<module>.input_scale" [1] (static activations) and "<module>.input_vector" to the store, fp32; with a norm
  /// also the bias.
  WrappedLinear(std::unique_ptr<nn::Linear> inner, const nn::LinearSpec& spec, const Scheme& scheme,
                nn::ParameterStore& store);

  at::Tensor forward(const at::Tensor& x) override;
  /// The inner weight: what the wrapper does is not part of it.
  at::Tensor weight(at::ScalarType dtype) override { return inner_->weight(dtype); }
  at::Tensor weight() override { return inner_->weight(); }
  at::Tensor lookup(const at::Tensor& indices) override { return inner_->lookup(indices); }
  at::Tensor logits(const at::Tensor& hidden, at::ScalarType dtype) override { return inner_->logits(hidden, dtype); }

  /// From the weight and, where there are some, the statistics of the inputs.
  void initialise(const QuantLinear& linear);
  void enable(bool on) { enabled_ = on; }

 private:
  std::unique_ptr<nn::Linear> inner_;
  QuantLinear* quantized_;  ///< inner_, or nullptr where that is of another kind
  Scheme scheme_;
  at::Tensor input_scale_, input_vector_, bias_;
  bool enabled_ = true;
};

/// The best |W| ~ rows columns^T in squared error: both are positive (the leading singular pair of a matrix without
/// negative entries), the columns' mean is 1.
struct RankOne {
  at::Tensor rows, columns;  ///< [N], [K] fp32 (fp64 for fp64 weights)
};
RankOne rank_one(const at::Tensor& weight);

}  // namespace satin::quant
