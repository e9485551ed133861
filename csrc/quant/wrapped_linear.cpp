#include "quant/wrapped_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ops/act_quant.h"

namespace satin::quant {
namespace {

const std::string kInputScale = ".input_scale", kInputVector = ".input_vector";
constexpr int kPowerIterations = 30;
constexpr double kInt8Ends = 127, kNormEpsilon = 1e-5;

ops::ActivationFormat format_of(Activations activations) {
  return activations == Activations::kFloat8 ? ops::ActivationFormat::kFloat8 : ops::ActivationFormat::kInt8;
}

}  // namespace

bool needs_wrapping(const Scheme& scheme) {
  return scheme.method == Method::kOneBit || scheme.activations != Activations::kNone;
}

bool is_wrapper_parameter(const std::string& name) {
  return name.ends_with(kInputScale) || name.ends_with(kInputVector);
}

nn::LinearSpec inner_spec(const nn::LinearSpec& spec, const Scheme& scheme) {
  nn::LinearSpec inner = spec;
  if (scheme.method == Method::kOneBit) inner.bias = false;
  return inner;
}

WrappedLinear::WrappedLinear(std::unique_ptr<nn::Linear> inner, const nn::LinearSpec& spec, const Scheme& scheme,
                             nn::ParameterStore& store)
    : inner_(std::move(inner)), quantized_(dynamic_cast<QuantLinear*>(inner_.get())), scheme_(scheme) {
  const at::ScalarType dtype = nn::statistics_dtype(store.options().master_dtype);
  if (scheme.activations == Activations::kInt8Static)
    input_scale_ = store.add(spec.name + kInputScale, {1}, nn::Role::kScale, dtype);
  if (scheme.method != Method::kOneBit) return;
  input_vector_ = store.add(spec.name + kInputVector, {spec.in_features}, nn::Role::kScale, dtype);
  if (spec.bias) bias_ = store.add(spec.name + ".bias", {spec.out_features}, nn::Role::kBias);
}

at::Tensor WrappedLinear::forward(const at::Tensor& x) {
  const auto with_bias = [&](const at::Tensor& y) { return bias_.defined() ? y + bias_.to(y.scalar_type()) : y; };
  if (!enabled_) return with_bias(inner_->forward(x));
  at::Tensor input = x;
  if (input_vector_.defined()) input = input * input_vector_.to(x.scalar_type());
  const bool by_codes = scheme_.activations == Activations::kInt8 && quantized_ && quantized_->multiplies_int8();
  if (by_codes) {
    // rounded by the product
  } else if (input_scale_.defined()) {
    input = ops::act_quant_static(input, input_scale_, format_of(scheme_.activations));
  } else if (scheme_.activations != Activations::kNone) {
    input = ops::act_quant(input, format_of(scheme_.activations));
  }
  const at::Tensor y = by_codes ? quantized_->multiply_int8(input) : inner_->forward(input);
  return input_vector_.defined() ? with_bias(at::layer_norm(y, {y.size(-1)}, {}, {}, kNormEpsilon)) : y;
}

void WrappedLinear::initialise(const QuantLinear& linear) {
  const at::NoGradGuard no_grad;
  if (input_vector_.defined()) input_vector_.copy_(rank_one(linear.master_weight()).columns);
  if (!input_scale_.defined()) return;
  if (linear.statistics()) {
    at::Tensor largest = linear.statistics()->largest;
    if (input_vector_.defined()) largest = largest * input_vector_;
    input_scale_.copy_(largest.max() / kInt8Ends);
  } else {
    input_scale_.fill_(1 / kInt8Ends);  // of unit inputs; calibration replaces it
  }
}

RankOne rank_one(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  const at::Tensor size = weight.detach().abs().to(nn::statistics_dtype(weight.scalar_type()));
  at::Tensor columns = size.mean(0), rows;
  for (int i = 0; i < kPowerIterations; ++i) {
    rows = at::mv(size, columns) / columns.square().sum().clamp_min(1e-30);
    columns = at::mv(size.t(), rows) / rows.square().sum().clamp_min(1e-30);
  }
  const at::Tensor mean = columns.mean().clamp_min(1e-30);
  return {rows * mean, columns / mean};
}

}  // namespace satin::quant
