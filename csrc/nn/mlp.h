// The gated feed-forward layer (SwiGLU; Shazeer 2020).
#pragma once
#include "nn/joined_linear.h"

namespace satin::nn {

/// y = W_down (silu(W_gate x) * W_up x); linears name + ".gate_proj", ".up_proj", ".down_proj".
class GatedMlp {
 public:
  GatedMlp(const std::string& name, int64_t hidden_size, int64_t intermediate_size, bool bias,
           const LinearFactory& factory, ParameterStore& store);
  /// x [..., H] in the compute dtype -> the same. Differentiable.
  at::Tensor forward(const at::Tensor& x) const;

  /// Makes step() possible; the norm is the one before this layer.
  void prepare_to_step(const RmsNorm& norm) {
    gate_and_up_ = std::make_unique<JoinedLinear>(std::vector{gate_proj_.get(), up_proj_.get()}, norm);
  }
  /// The stream [M, H] with this layer's result, of the norm's, added; dtype: compute.
  Stream step(const Stream& stream, at::ScalarType dtype) const;

 private:
  std::unique_ptr<Linear> gate_proj_, up_proj_, down_proj_;
  std::unique_ptr<JoinedLinear> gate_and_up_;
};

}  // namespace satin::nn
