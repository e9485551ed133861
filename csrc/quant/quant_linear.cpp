#include "quant/quant_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace satin::quant {

QuantLinear::QuantLinear(const nn::LinearSpec& spec, const Scheme& scheme, nn::ParameterStore& store)
    : name_(spec.name),
      out_features_(spec.out_features),
      weight_(scheme.splits_by_rows()
                  ? store.add_rows(spec.name + ".weight", {spec.out_features, spec.in_features}, spec.role)
                  : store.add(spec.name + ".weight", {spec.out_features, spec.in_features}, spec.role)),
      bias_(spec.bias ? store.add(spec.name + ".bias", {spec.out_features}, nn::Role::kBias) : at::Tensor()),
      quantizer_(spec.name, spec.out_features, spec.in_features, scheme, store),
      options_(store.shared_options()) {}

at::Tensor QuantLinear::forward(const at::Tensor& x) {
  if (observing_) {
    const at::NoGradGuard no_grad;
    const at::Tensor rows = x.detach().reshape({-1, x.size(-1)}).to(at::kFloat);
    statistics_->squares.add_(rows.square().sum(0));
    statistics_->largest = at::maximum(statistics_->largest, rows.abs().amax(0));
  }
  const at::Tensor y =
      at::linear(x, weight(), bias_.defined() ? std::optional(bias_.to(options_->compute_dtype)) : std::nullopt);
  if (watcher_) watcher_(x, y);
  return y;
}

at::Tensor QuantLinear::multiply_int8(const at::Tensor& x) {
  SATIN_CHECK(multiplies_int8(), name_, ": holds no codes");
  return ops::a8_linear(x, *packed_, held_,
                        bias_.defined() ? std::optional(bias_.to(options_->compute_dtype)) : std::nullopt);
}

at::Tensor QuantLinear::weight(at::ScalarType dtype) {
  if (held_.defined() && (held_.scalar_type() == dtype || is_split())) return held_.to(dtype);
  SATIN_CHECK(!is_split(), name_, ": other processes' rows were not gathered");
  return enabled_ ? quantizer_.quantize(weight_, dtype) : weight_.to(dtype);
}

void QuantLinear::initialise() {
  if (statistics_ && !at::isfinite(statistics_->squares).all().item<bool>())
    throw UserError(cat(name_, ": its inputs on the calibration text are NaN or infinite: is the model damaged?"));
  quantizer_.initialise(weight_, statistics_ ? statistics_->squares : at::Tensor());
}

void QuantLinear::observe(bool on) {
  observing_ = on;
  if (!on) return;
  const auto options = weight_.options().dtype(at::kFloat).requires_grad(false);
  statistics_ = {at::zeros({weight_.size(1)}, options), at::zeros({weight_.size(1)}, options)};
}

}  // namespace satin::quant
