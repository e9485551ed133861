#include "quant/quantizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"

namespace satin::quant {
namespace {

ops::Rounding rounding(Storage storage) {
  switch (storage) {
    case Storage::kBFloat16:
      return ops::Rounding::kBFloat16;
    case Storage::kFloat16:
      return ops::Rounding::kFloat16;
    case Storage::kExact:
      return ops::Rounding::kNone;
  }
  throw InternalError("unknown storage format");
}

ops::Grid grid_kind(const Scheme& scheme) {
  switch (scheme.method) {
    case Method::kMinMaxSymmetric:
    case Method::kLsq:
      return ops::Grid::kSymmetric;
    case Method::kMinMaxAsymmetric:
    case Method::kLsqAsymmetric:
      return ops::Grid::kAsymmetric;
    case Method::kSeq:
      return ops::Grid::kSeq;
    case Method::kTernary:
      return ops::Grid::kTernary;
    case Method::kBinary:
      return ops::Grid::kBinary;
    case Method::kBitNet:
      return ops::Grid::kBitNet;
    case Method::kOneBit:
      return ops::Grid::kOneBit;
  }
  throw InternalError("unknown quantization method");
}

at::ScalarType state_dtype(at::ScalarType weight_dtype) {
  return weight_dtype == at::kDouble ? at::kDouble : at::kFloat;
}

std::optional<at::Tensor> optional_tensor(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace

ops::FakeQuantGrid kernel_grid(const Scheme& scheme, int64_t in_features) {
  return {grid_kind(scheme), scheme.bits, scheme.group_size < 0 ? in_features : scheme.group_size,
          rounding(scheme.scale_dtype), rounding(scheme.dequant_dtype)};
}

QuantizerState state_from_data(const at::Tensor& weight, const Scheme& scheme) {
  const at::NoGradGuard no_grad;
  ops::FakeQuantBatch batch;
  batch.grid = kernel_grid(scheme, weight.size(1));
  batch.weights = {weight.detach()};
  batch.group_sizes = {batch.grid.group_size};
  const ops::DataScales found = ops::data_scale_many(batch);
  QuantizerState state{found.scales[0], found.zero_points.empty() ? at::Tensor() : found.zero_points[0]};
  if (scheme.method == Method::kLsq) {  // from the largest weight onto the highest level, not onto both ends
    const double to_highest = ((1 << scheme.bits) - 1) / 2.0 / ((1 << (scheme.bits - 1)) - 1);
    state.scale = state.scale * to_highest;
  }
  return state;
}

QuantizerState initial_state(const at::Tensor& weight, const Scheme& scheme) {
  const bool searched = scheme.learned_scale() && scheme.mse_init;
  if (!searched || scheme.method == Method::kBinary)  // mean|w| is what a search would find
    return state_from_data(weight, scheme);
  const at::NoGradGuard no_grad;
  const ops::ClipSearchResult found = ops::clip_search(weight.detach(), kernel_grid(scheme, weight.size(1)));
  return {found.scale, found.zero_point};
}

Quantizer::Quantizer(const std::string& module, int64_t out_features, int64_t in_features, const Scheme& scheme,
                     nn::ParameterStore& store)
    : module_(module), scheme_(scheme), grid_(kernel_grid(scheme, in_features)) {
  if (!scheme.learned_scale()) return;
  const std::vector<int64_t> shape{out_features, scheme.groups(in_features)};
  const at::ScalarType dtype = state_dtype(store.options().master_dtype);
  learned_.scale = store.add(module + ".weight_scale", shape, nn::Role::kScale, dtype);
  if (scheme.has_zero_point())
    learned_.zero_point = store.add(module + ".weight_zero_point", shape, nn::Role::kZeroPoint, dtype);
}

QuantizerState Quantizer::state(const at::Tensor& weight) const {
  return scheme_.learned_scale() ? learned_ : state_from_data(weight, scheme_);
}

at::Tensor Quantizer::quantize(const at::Tensor& weight, at::ScalarType dtype) const {
  const QuantizerState now = state(weight);
  return ops::fake_quant(weight, now.scale, optional_tensor(now.zero_point), grid_, dtype);
}

void Quantizer::initialise(const at::Tensor& weight) {
  const at::NoGradGuard no_grad;
  if (!at::isfinite(weight).all().item<bool>())
    throw UserError(cat(module_,
                        ".weight holds NaN or infinite values, which cannot be quantized: the checkpoint that it ",
                        "was loaded from is damaged; fetch or save it again"));
  if (!scheme_.learned_scale()) return;
  const QuantizerState start = initial_state(weight, scheme_);
  learned_.scale.copy_(start.scale);
  if (learned_.zero_point.defined()) learned_.zero_point.copy_(start.zero_point);
}

}  // namespace satin::quant
