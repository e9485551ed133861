// The state of a fake-quantized weight: one scale (and zero point) a group, learned or made from the weight.
//
// Shapes   weight [N, K]; scale and zero_point [N, G], G = K / group_size (1 for a scale a row or a tensor).
// Dtypes   state fp32, or fp64 with fp64 weights, whatever it is stored as: the forward rounds it (straight through).
// Source   Esser et al. 2020 (LSQ); Liu et al. 2025 (ParetoQ); kernels/fake_quant.h for the formulas.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "nn/parameters.h"
#include "ops/ops.h"
#include "quant/scheme.h"

namespace satin::quant {

/// The scheme in the kernels' words, for rows of in_features weights.
ops::FakeQuantGrid kernel_grid(const Scheme& scheme, int64_t in_features);

/// What the kernels take.
struct QuantizerState {
  at::Tensor scale;
  at::Tensor zero_point;  ///< undefined where the scheme has none
};

/// What is learned and stored: a parameter "<module>.<name>" each.
struct QuantizerParameters {
  at::Tensor scale, zero_point;    ///< "weight_scale", "weight_zero_point" [N, G]; a scale a tensor: [1, 1]
  at::Tensor clip_high, clip_low;  ///< "weight_clip_high", "weight_clip_low" [N, G], see clip.h
};
struct QuantizerParameter {
  const char* name;
  at::Tensor QuantizerParameters::*member;
  nn::Role role;
};
/// Those that the scheme has.
std::vector<QuantizerParameter> parameters_of(const Scheme& scheme);
/// Whether a stored tensor's name is that of one, of any scheme: "<module>.weight_scale" and the like.
bool is_quantizer_parameter(const std::string& name);

/// The state of the next forward, a differentiable function of the parameters (and of the weight where the scheme reads
/// it; no gradient flows there).
QuantizerState state_of(const at::Tensor& weight, const Scheme& scheme, const QuantizerParameters& parameters);

/// From each group:
///   min-max symmetric  max|w| / ((2^b - 1) / 2)       LSQ              max|w| / (2^(b-1) - 1)
///   asymmetric, LWC    (max - min) / (2^b - 1), round(-min / scale)   SEQ, ternary     max|w|
///                                                                  binary, BitNet, OneBit   mean|w|
/// (min and max include 0; the asymmetric zero point divides by the scale as stored.)
QuantizerState state_from_data(const at::Tensor& weight, const Scheme& scheme);

/// Where a learned state starts: as scheme.init says; methods that learn no scale: state_from_data. importance [K]:
/// mean squares of the inputs, for Init::kWeightedSearch; undefined: an unweighted search. A scale a tensor is searched
/// on an even sample of a million weights.
QuantizerState initial_state(const at::Tensor& weight, const Scheme& scheme, const at::Tensor& importance = {});

/// A weight's quantizer.
class Quantizer {
 public:
  /// Adds its parameters to the store.
  Quantizer(const std::string& module, int64_t out_features, int64_t in_features, const Scheme& scheme,
            nn::ParameterStore& store);

  const Scheme& scheme() const { return scheme_; }
  const ops::FakeQuantGrid& grid() const { return grid_; }
  const QuantizerParameters& parameters() const { return parameters_; }
  QuantizerState state(const at::Tensor& weight) const { return state_of(weight, scheme_, parameters_); }
  /// The fake-quantized weight in `dtype`, differentiable.
  at::Tensor quantize(const at::Tensor& weight, at::ScalarType dtype) const;
  /// Fills the learned parameters from the weight; importance as initial_state. Throws UserError when the weight is not
  /// finite.
  void initialise(const at::Tensor& weight, const at::Tensor& importance = {});
  /// Integer grids: from now on codes of `bits`. With `keep_range` learned scales and zero points are converted, so
  /// that the coarser grid's levels are levels of the finer one (nested: -2^(b-1) a is the same weight).
  /// All columns have them then.
  void set_bits(int bits, bool keep_range);
  /// Learned integer grids, before initialise(): bits of each group (Scheme::column_bits), in codes of the widest.
  void set_column_bits(const std::vector<int>& column_bits);

 private:
  std::string module_;
  Scheme scheme_;
  ops::FakeQuantGrid grid_;
  QuantizerParameters parameters_;
};

}  // namespace satin::quant
