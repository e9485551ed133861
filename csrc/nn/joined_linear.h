// What a decoding step makes of linear layers: those of one input as one product where their weights are packed alike,
// the norm before it and the sum after it in the same launch.
#pragma once
#include <optional>
#include <vector>

#include "nn/linear_factory.h"
#include "nn/norm.h"

namespace satin::nn {

/// Layers that read the same norm's result.
class JoinedLinear {
 public:
  /// Packed weights that can be joined become parts of one (ops/packed_weight.h); the layers stay what they are. The
  /// layers outlive it.
  JoinedLinear(std::vector<Linear*> parts, const RmsNorm& norm);

  struct Result {
    at::Tensor stream;              ///< the sum [M, H]
    std::vector<at::Tensor> parts;  ///< [M, out] of each in the compute dtype
  };
  Result forward(const Stream& stream, at::ScalarType dtype) const;
  /// Of a gate and an up: silu(gate) * up, and the stream.
  std::pair<at::Tensor, at::Tensor> gated(const Stream& stream, at::ScalarType dtype) const;

 private:
  at::Tensor multiply(const at::Tensor& stream, at::ScalarType dtype, bool gated) const;

  std::vector<Linear*> parts_;
  at::Tensor norm_weight_;
  double norm_eps_;
  std::optional<ops::PackedWeight> joined_;
  at::Tensor bias_;  ///< of the joined one
  std::vector<int64_t> sizes_;
};

/// stream + the layer's product of x [M, K], summed where its weight is packed.
Stream added(Linear& layer, const at::Tensor& stream, const at::Tensor& x);

}  // namespace satin::nn
