#include "quant/codes.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "quant/column_limits.h"
#include "quant/policy.h"

namespace satin::quant {
namespace {

/// Reads the tensor once and makes none of its size. (The extremes of what holds a NaN are NaN.)
bool is_finite(const at::Tensor& values) {
  if (values.numel() == 0) return true;
  const auto [low, high] = at::aminmax(values);
  return std::isfinite(low.item<double>()) && std::isfinite(high.item<double>());
}

QuantizedWeight take_apart(const at::Tensor& weight, const QuantizerState& state, const Scheme& scheme,
                           const std::string& module) {
  const at::NoGradGuard no_grad;
  const ops::FakeQuantCodes parts = codes_of(weight, state, scheme);
  // NaN and infinity have no code.
  if (!is_finite(weight) || !is_finite(parts.scale))
    throw UserError(cat(module, ": the weight or its scales hold NaN or infinite values, which have no integer codes"));
  return {scheme, parts.codes, parts.scale.to(storage_dtype(scheme.scale_dtype, parts.scale.scalar_type())),
          parts.zero};
}

}  // namespace

int64_t code_step(const Scheme& scheme) {
  const bool doubled =
      scheme.method == Method::kSeq || scheme.method == Method::kBinary || scheme.method == Method::kOneBit;
  return doubled ? 2 : 1;
}

at::ScalarType storage_dtype(Storage storage, at::ScalarType exact) {
  return storage == Storage::kBFloat16 ? at::kBFloat16 : storage == Storage::kFloat16 ? at::kHalf : exact;
}

QuantizedWeight quantize_weight(const QuantLinear& linear) {
  return take_apart(linear.master_weight(), linear.state(), linear.scheme(), linear.name());
}

QuantizedWeight quantize_weight(const Scheme& scheme, const at::Tensor& weight, const QuantizerParameters& parameters,
                                const std::string& module) {
  check_fits(scheme, module, weight.size(1));
  for (const QuantizerParameter& parameter : parameters_of(scheme)) {
    const at::Tensor& value = parameters.*parameter.member;
    const std::vector<int64_t> expected{scheme.per_tensor() ? 1 : weight.size(0), scheme.groups(weight.size(1))};
    if (!value.defined() || value.sizes() != expected)
      throw UserError(cat(module, ".", parameter.name, ": expected ", at::IntArrayRef(expected), " for ",
                          describe(scheme), ", found ", value.defined() ? cat(value.sizes()) : "nothing"));
  }
  const at::NoGradGuard no_grad;
  return take_apart(weight, state_of(weight, scheme, parameters), scheme, module);
}

QuantizedWeight round_to_nearest(const at::Tensor& weight, const Scheme& scheme, const std::string& module) {
  check_fits(scheme, module, weight.size(1));
  return take_apart(weight, initial_state(weight, scheme), scheme, module);
}

QuantizedWeight rows(const QuantizedWeight& weight, int64_t first, int64_t last) {
  return {weight.scheme, weight.codes.slice(0, first, last), weight.scale.slice(0, first, last),
          weight.zero_point.slice(0, first, last)};
}

int64_t rows_at_once(int64_t num_columns) {
  constexpr int64_t kWeights = 1 << 17;
  return std::max<int64_t>(1, kWeights / std::max<int64_t>(1, num_columns));
}

at::Tensor levels(const QuantizedWeight& weight) {
  const int64_t rows = weight.codes.size(0), groups = weight.scale.size(1);
  const at::Tensor codes = weight.codes.view({rows, groups, -1}).to(at::kInt);
  return (codes * code_step(weight.scheme) - weight.zero_point.unsqueeze(-1)).view(weight.codes.sizes());
}

at::Tensor codes_around(const QuantizedWeight& weight, int middle) {
  const at::Tensor offset = (middle - weight.zero_point).to(at::kByte).unsqueeze(-1);
  at::Tensor codes = weight.codes.view({weight.codes.size(0), weight.scale.size(1), -1});
  if (const int64_t step = code_step(weight.scheme); step != 1) codes = codes * step;
  return (codes + offset).view(weight.codes.sizes());  // modulo 256, and the sum is below
}

at::Tensor dequantize(const QuantizedWeight& weight) {
  const at::NoGradGuard no_grad;
  const at::ScalarType arithmetic = weight.scale.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t num_rows = weight.codes.size(0), step = rows_at_once(weight.codes.size(1));
  at::Tensor values = at::empty(weight.codes.sizes(),
                                weight.codes.options().dtype(storage_dtype(weight.scheme.dequant_dtype, arithmetic)));
  for (int64_t first = 0; first < num_rows; first += step) {
    const QuantizedWeight piece = rows(weight, first, std::min(num_rows, first + step));
    const at::Tensor grouped = levels(piece).view({piece.codes.size(0), piece.scale.size(1), -1});
    const at::Tensor product = piece.scale.to(arithmetic).unsqueeze(-1) * grouped.to(arithmetic);
    values.narrow(0, first, piece.codes.size(0)).copy_(product.view(piece.codes.sizes()));
  }
  return values;
}

}  // namespace satin::quant
