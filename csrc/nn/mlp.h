// The gated feed-forward layer (SwiGLU; Shazeer 2020).
#pragma once
#include "nn/linear_factory.h"

namespace satin::nn {

/// y = W_down (silu(W_gate x) * W_up x); linears name + ".gate_proj", ".up_proj", ".down_proj".
class GatedMlp {
 public:
  GatedMlp(const std::string& name, int64_t hidden_size, int64_t intermediate_size, bool bias,
           const LinearFactory& factory, ParameterStore& store);
  /// x [..., H] in the compute dtype -> the same. Differentiable.
  at::Tensor forward(const at::Tensor& x) const;

 private:
  std::unique_ptr<Linear> gate_proj_, up_proj_, down_proj_;
};

}  // namespace satin::nn
