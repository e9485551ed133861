// The state of a fake-quantized weight: one scale (and zero point) a group, learned or read off the weight.
//
// Shapes   weight [N, K]; scale and zero_point [N, G], G = K / group_size (1 for a scale a row).
// Dtypes   state fp32, or fp64 with fp64 weights, whatever it is stored as: the forward rounds it (straight through).
// Source   Esser et al. 2020 (LSQ); Liu et al. 2025 (ParetoQ); kernels/fake_quant.h for the formulas.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>

#include "nn/parameters.h"
#include "ops/ops.h"
#include "quant/scheme.h"

namespace satin::quant {

/// The scheme in the kernels' words, for rows of in_features weights.
ops::FakeQuantGrid kernel_grid(const Scheme& scheme, int64_t in_features);

struct QuantizerState {
  at::Tensor scale;
  at::Tensor zero_point;  ///< undefined where the scheme has none
};

/// From each group:
///   min-max symmetric  max|w| / ((2^b - 1) / 2)       LSQ              max|w| / (2^(b-1) - 1)
///   asymmetric         (max - min) / (2^b - 1), round(-min / scale)   SEQ, ternary     max|w|
///                                                                  binary, BitNet   mean|w|
/// (min and max include 0; the asymmetric zero point divides by the scale as stored.)
QuantizerState state_from_data(const at::Tensor& weight, const Scheme& scheme);

/// Where a learned state starts: clip search (scheme.mse_init) or state_from_data; methods that learn no scale:
/// always the latter.
QuantizerState initial_state(const at::Tensor& weight, const Scheme& scheme);

/// A weight's quantizer.
class Quantizer {
 public:
  /// Learned methods add "<module>.weight_scale" and "<module>.weight_zero_point" to the store.
  Quantizer(const std::string& module, int64_t out_features, int64_t in_features, const Scheme& scheme,
            nn::ParameterStore& store);

  const Scheme& scheme() const { return scheme_; }
  const ops::FakeQuantGrid& grid() const { return grid_; }
  const QuantizerState& learned_state() const { return learned_; }
  /// The learned parameters, or what this weight's data give, outside the graph.
  QuantizerState state(const at::Tensor& weight) const;
  /// The fake-quantized weight in `dtype`, differentiable.
  at::Tensor quantize(const at::Tensor& weight, at::ScalarType dtype) const;
  /// Fills the learned parameters from the weight. Throws UserError when the weight is not finite.
  void initialise(const at::Tensor& weight);

 private:
  std::string module_;
  Scheme scheme_;
  ops::FakeQuantGrid grid_;
  QuantizerState learned_;
};

}  // namespace satin::quant
