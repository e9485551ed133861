// A linear layer that multiplies with the codes of its weight (ops/packed_linear.h). For inference.
#pragma once
#include <string>

#include "nn/linear_factory.h"
#include "ops/packed_linear.h"
#include "quant/codes.h"

namespace satin::quant {

/// Why the packed layout holds no weight of this scheme and shape, for people; empty: it does. It holds 1, 2, 3, 4 and
/// 8 bits with 16-bit scales, in groups of a multiple of 32 or of whole rows.
std::string reason_against_packing(const Scheme& scheme, int64_t in_features);
/// The same of a weight, whose zero points must be 0 ... 255.
std::string reason_against_packing(const QuantizedWeight& weight);

/// Throws InternalError where there is a reason against it.
ops::PackedWeight pack(const QuantizedWeight& weight);

class PackedLinear : public nn::Linear {
 public:
  /// Adds "<name>.bias" to the store when the spec asks for one; the weight is no parameter.
  PackedLinear(const nn::LinearSpec& spec, ops::PackedWeight weight, nn::ParameterStore& store);

  /// Where x needs a gradient, and in logits() of many rows, with the weight dequantized.
  at::Tensor forward(const at::Tensor& x) override;
  /// Dequantized as a whole: for what cannot do with forward(), logits() and lookup().
  at::Tensor weight(at::ScalarType dtype) override;
  at::Tensor weight() override { return weight(options_->compute_dtype); }
  at::Tensor lookup(const at::Tensor& indices) override;
  at::Tensor logits(const at::Tensor& hidden, at::ScalarType dtype) override;

  nn::PackedParts packed() override;

 private:
  ops::PackedWeight weight_;
  at::Tensor bias_;
  std::shared_ptr<const nn::BuildOptions> options_;
};

}  // namespace satin::quant
