#include "quant/quant_linear.h"

#include <ATen/ATen.h>

namespace satin::quant {

QuantLinear::QuantLinear(const nn::LinearSpec& spec, const Scheme& scheme, nn::ParameterStore& store)
    : name_(spec.name),
      weight_(store.add(spec.name + ".weight", {spec.out_features, spec.in_features}, nn::Role::kWeight)),
      bias_(spec.bias ? store.add(spec.name + ".bias", {spec.out_features}, nn::Role::kBias) : at::Tensor()),
      quantizer_(spec.name, spec.out_features, spec.in_features, scheme, store),
      compute_dtype_(store.options().compute_dtype) {}

at::Tensor QuantLinear::forward(const at::Tensor& x) {
  return at::linear(x, weight(), bias_.defined() ? std::optional(bias_.to(compute_dtype_)) : std::nullopt);
}

at::Tensor QuantLinear::weight(at::ScalarType dtype) {
  return held_.defined() && held_.scalar_type() == dtype ? held_ : quantizer_.quantize(weight_, dtype);
}

}  // namespace satin::quant
