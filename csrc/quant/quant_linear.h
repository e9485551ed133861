// A linear layer with a fake-quantized weight: y = x Q(W)^T + b. What some schemes do around it: wrapped_linear.h.
#pragma once
#include <functional>

#include "nn/linear_factory.h"
#include "ops/a8_linear.h"
#include "quant/quantizer.h"

namespace satin::quant {

/// What calibration text brings to a layer, summed over all rows of its inputs.
struct InputStatistics {
  at::Tensor squares;  ///< [in], fp32: sums of squares
  at::Tensor largest;  ///< [in]: the largest absolute values
};

class QuantLinear : public nn::Linear {
 public:
  /// Adds "<name>.weight", ".bias" when asked, and the quantizer's parameters. The scheme fits in_features (see
  /// policy.h).
  QuantLinear(const nn::LinearSpec& spec, const Scheme& scheme, nn::ParameterStore& store);

  at::Tensor forward(const at::Tensor& x) override;
  /// Whether multiply_int8() can take the place of forward() on inputs rounded to int8 (a scale a token).
  bool multiplies_int8() const { return packed_.has_value() && !observing_; }
  /// forward(act_quant(x)) but for rounding, by codes: see ops/a8_linear.h.
  at::Tensor multiply_int8(const at::Tensor& x);
  at::Tensor weight(at::ScalarType dtype) override;
  at::Tensor weight() override { return weight(options_->compute_dtype); }

  const std::string& name() const { return name_; }
  const Quantizer& quantizer() const { return quantizer_; }
  const Scheme& scheme() const { return quantizer_.scheme(); }
  const ops::FakeQuantGrid& grid() const { return quantizer_.grid(); }
  /// The full-precision weight [out, in], a parameter (or this process's rows of it).
  const at::Tensor& master_weight() const { return weight_; }
  /// The scales and zero points of the next forward, a differentiable function of the parameters.
  QuantizerState state() const { return quantizer_.state(weight_); }
  /// Call when the weight has been loaded and before the first forward, and again after calibration. Throws UserError
  /// for a weight or inputs that are not finite.
  void initialise();
  void set_bits(int bits, bool keep_range) { quantizer_.set_bits(bits, keep_range); }
  void set_column_bits(const std::vector<int>& column_bits) { quantizer_.set_column_bits(column_bits); }

  /// Off: the layer multiplies with its master weight, in full precision.
  void enable(bool on) { enabled_ = on; }
  bool enabled() const { return enabled_; }

  /// From here on forward() adds its inputs to `statistics`; statistics() stay when it is turned off.
  void observe(bool on);
  const std::optional<InputStatistics>& statistics() const { return statistics_; }

  /// From here on forward() shows its input and its output, which is attached to the graph; an empty function: no more.
  void watch(std::function<void(const at::Tensor& x, const at::Tensor& y)> watcher) { watcher_ = std::move(watcher); }

  /// From here on weight() returns `quantized` where its dtype is asked for; undefined: computed on every use again.
  /// For held_weights.h. A layer of which this process owns some rows has no other weight, and casts it.
  /// With `packed`, the same weight's codes, multiply_int8() multiplies with these.
  void hold(const at::Tensor& quantized, std::optional<ops::PackedWeight> packed = {}) {
    held_ = quantized;
    packed_ = std::move(packed);
  }
  bool is_split() const { return weight_.size(0) != out_features_; }
  int64_t out_features() const { return out_features_; }

 private:
  std::string name_;
  int64_t out_features_;
  at::Tensor weight_, bias_;
  Quantizer quantizer_;
  std::shared_ptr<const nn::BuildOptions> options_;
  at::Tensor held_;
  std::function<void(const at::Tensor&, const at::Tensor&)> watcher_;
  std::optional<ops::PackedWeight> packed_;
  bool enabled_ = true, observing_ = false;
  std::optional<InputStatistics> statistics_;
};

}  // namespace satin::quant
