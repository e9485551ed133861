#include "quant/quantizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "quant/clip.h"
#include "quant/column_limits.h"
#include "quant/wrapped_linear.h"

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
    case Method::kLwc:
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

/// [1, 2] with the statistics that a scale is made of, for a scale a tensor: its ends, or its mean twice.
at::Tensor summary_of(const at::Tensor& weight, ops::Grid kind) {
  const at::ScalarType dtype = nn::statistics_dtype(weight.scalar_type());
  if (kernels::has_signs(kind) || kind == ops::Grid::kBitNet)
    return weight.abs().mean(at::kDouble).to(dtype).expand({1, 2}).contiguous();
  const auto [low, high] = at::aminmax(weight);
  return at::stack({low, high}).to(dtype).unsqueeze(0);
}

/// One value a tensor as the kernels take it: one a row.
at::Tensor one_a_row(const at::Tensor& value, int64_t num_rows) {
  if (!value.defined()) return value;
  // The multiplier of kernels counts the weights of a row, ours those of the tensor.
  return with_scaled_gradient(value.expand({num_rows, 1}), 1 / std::sqrt(static_cast<double>(num_rows)));
}

QuantizerState per_row(const QuantizerState& state, int64_t num_rows) {
  return {one_a_row(state.scale, num_rows), one_a_row(state.zero_point, num_rows)};
}

constexpr QuantizerParameter kScale{"weight_scale", &QuantizerParameters::scale, nn::Role::kScale};
constexpr QuantizerParameter kZeroPoint{"weight_zero_point", &QuantizerParameters::zero_point, nn::Role::kZeroPoint};
constexpr QuantizerParameter kClipHigh{"weight_clip_high", &QuantizerParameters::clip_high, nn::Role::kClip};
constexpr QuantizerParameter kClipLow{"weight_clip_low", &QuantizerParameters::clip_low, nn::Role::kClip};

constexpr int64_t kSearchedWeights = 1 << 20;

/// An even sample of about a million weights as one group, [1, n].
at::Tensor sample(const at::Tensor& weight) {
  const at::Tensor flat = weight.reshape({1, -1});
  int64_t stride = std::max<int64_t>(1, (flat.numel() + kSearchedWeights - 1) / kSearchedWeights);
  while (std::gcd(stride, weight.size(1)) != 1) ++stride;  // every column in its turn
  return flat.slice(1, 0, std::nullopt, stride).contiguous();
}

}  // namespace

ops::FakeQuantGrid kernel_grid(const Scheme& scheme, int64_t in_features) {
  return {grid_kind(scheme), scheme.bits, scheme.group_size <= 0 ? in_features : scheme.group_size,
          rounding(scheme.scale_dtype), rounding(scheme.dequant_dtype)};
}

std::vector<QuantizerParameter> parameters_of(const Scheme& scheme) {
  if (scheme.method == Method::kLwc) return {kClipHigh, kClipLow};
  if (!scheme.learned_scale()) return {};
  if (!scheme.has_zero_point()) return {kScale};
  return {kScale, kZeroPoint};
}

bool is_quantizer_parameter(const std::string& name) {
  for (const QuantizerParameter& parameter : {kScale, kZeroPoint, kClipHigh, kClipLow})
    if (name.ends_with(cat(".", parameter.name))) return true;
  return false;
}

QuantizerState state_of(const at::Tensor& weight, const Scheme& scheme, const QuantizerParameters& parameters) {
  if (scheme.reads_data()) return state_from_data(weight, scheme);
  if (scheme.method == Method::kLwc)
    return clipped_state(weight, parameters.clip_high, parameters.clip_low, kernel_grid(scheme, weight.size(1)));
  const QuantizerState learned{parameters.scale, parameters.zero_point};
  return scheme.per_tensor() ? per_row(learned, weight.size(0)) : learned;
}

QuantizerState state_from_data(const at::Tensor& weight, const Scheme& scheme) {
  const at::NoGradGuard no_grad;
  const at::Tensor groups = scheme.per_tensor() ? summary_of(weight.detach(), grid_kind(scheme)) : weight.detach();
  ops::FakeQuantBatch batch;
  batch.grid = kernel_grid(scheme, groups.size(1));
  batch.weights = {groups};
  batch.group_sizes = {batch.grid.group_size};
  const ops::DataScales found = ops::data_scale_many(batch);
  QuantizerState state{found.scales[0], found.zero_points.empty() ? at::Tensor() : found.zero_points[0]};
  if (scheme.method == Method::kLsq) {  // from the largest weight onto the highest level, not onto both ends
    const double to_highest = ((1 << scheme.bits) - 1) / 2.0 / ((1 << (scheme.bits - 1)) - 1);
    state.scale = state.scale * to_highest;
  }
  return scheme.per_tensor() ? per_row(state, weight.size(0)) : state;
}

QuantizerState initial_state(const at::Tensor& weight, const Scheme& scheme, const at::Tensor& importance) {
  if (scheme.has_columns()) return initial_state_of_columns(weight, scheme, importance);
  if (scheme.method == Method::kOneBit) return {rank_one(weight).rows.unsqueeze(1), {}};
  const bool searched = scheme.learned_scale() && scheme.init != Init::kData;
  if (!searched || scheme.method == Method::kBinary)  // mean|w| is what a search would find
    return state_from_data(weight, scheme);
  const at::NoGradGuard no_grad;
  if (scheme.per_tensor()) {
    const at::Tensor values = sample(weight.detach());
    const ops::ClipSearchResult found = ops::clip_search(values, kernel_grid(scheme, values.size(1)));
    return per_row({found.scale, found.zero_point}, weight.size(0));
  }
  const bool weighted = scheme.searches_weighted() && importance.defined();
  const ops::ClipSearchResult found = ops::clip_search(weight.detach(), kernel_grid(scheme, weight.size(1)),
                                                       weighted ? std::optional(importance) : std::nullopt);
  return {found.scale, found.zero_point};
}

Quantizer::Quantizer(const std::string& module, int64_t out_features, int64_t in_features, const Scheme& scheme,
                     nn::ParameterStore& store)
    : module_(module), scheme_(scheme), grid_(kernel_grid(scheme, in_features)) {
  const std::vector<int64_t> shape{scheme.per_tensor() ? 1 : out_features, scheme.groups(in_features)};
  const at::ScalarType dtype = nn::statistics_dtype(store.options().master_dtype);
  for (const QuantizerParameter& parameter : parameters_of(scheme)) {
    const std::string name = cat(module, ".", parameter.name);
    parameters_.*parameter.member = scheme.splits_by_rows() ? store.add_rows(name, shape, parameter.role, dtype)
                                                            : store.add(name, shape, parameter.role, dtype);
  }
}

at::Tensor Quantizer::quantize(const at::Tensor& weight, at::ScalarType dtype) const {
  return fake_quantized(weight, state(weight), scheme_, dtype);
}

void Quantizer::initialise(const at::Tensor& weight, const at::Tensor& importance) {
  const at::NoGradGuard no_grad;
  if (!at::isfinite(weight).all().item<bool>())
    throw UserError(cat(module_,
                        ".weight holds NaN or infinite values, which cannot be quantized: the checkpoint that it ",
                        "was loaded from is damaged; fetch or save it again"));
  for (at::Tensor* clip : {&parameters_.clip_high, &parameters_.clip_low})
    if (clip->defined()) clip->fill_(kInitialClip);
  if (!scheme_.learned_scale()) return;
  const QuantizerState start = initial_state(weight, scheme_, importance);
  const int64_t num_rows = parameters_.scale.size(0);  // 1 for a scale a tensor, where all are equal
  parameters_.scale.copy_(start.scale.narrow(0, 0, num_rows));
  if (parameters_.zero_point.defined()) parameters_.zero_point.copy_(start.zero_point.narrow(0, 0, num_rows));
}

void Quantizer::set_bits(int bits, bool keep_range) {
  SATIN_CHECK(scheme_.has_integer_grid(), module_, ": ", describe(scheme_), " has one number of bits");
  SATIN_CHECK(!keep_range || !scheme_.has_columns(), module_, ": ", describe(scheme_), " has no other range");
  const double ratio = std::exp2(scheme_.bits - bits);
  if (keep_range && parameters_.scale.defined()) {
    const at::NoGradGuard no_grad;
    parameters_.scale.mul_(ratio);
    if (parameters_.zero_point.defined()) parameters_.zero_point.div_(ratio);
  }
  scheme_.bits = grid_.bits = bits;
  scheme_.column_bits.clear();
}

void Quantizer::set_column_bits(const std::vector<int>& column_bits) {
  scheme_.column_bits = column_bits;
  scheme_.bits = grid_.bits = *std::ranges::max_element(column_bits);
}

}  // namespace satin::quant
