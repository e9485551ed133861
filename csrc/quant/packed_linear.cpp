#include "quant/packed_linear.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "ops/decode_rows.h"

namespace satin::quant {
namespace {

bool needs_gradient(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

}  // namespace

std::string reason_against_packing(const Scheme& scheme, int64_t in_features) {
  const int bits = scheme.bits;
  if (bits != 1 && bits != 2 && bits != 3 && bits != 4 && bits != 8) return cat(bits, " bits");
  if (scheme.scale_dtype == Storage::kExact) return "scales of more than 16 bits";
  if (scheme.groups(in_features) > 1 && scheme.group_size % 32 != 0)
    return cat("groups of ", scheme.group_size, ", not a multiple of 32");
  return "";
}

std::string reason_against_packing(const QuantizedWeight& weight) {
  const std::string reason = reason_against_packing(weight.scheme, weight.codes.size(1));
  if (!reason.empty()) return reason;
  const auto [least, most] = at::aminmax(weight.zero_point);
  const auto low = least.item<int64_t>(), high = most.item<int64_t>();
  return low < 0 || high > 255 ? cat("zero points from ", low, " to ", high) : "";
}

ops::PackedWeight pack(const QuantizedWeight& weight) {
  const std::string reason = reason_against_packing(weight);
  SATIN_CHECK(reason.empty(), reason);
  return ops::pack_weight(weight.codes, weight.scale, weight.zero_point.to(at::kInt), weight.scheme.bits,
                          static_cast<int>(code_step(weight.scheme)),
                          storage_dtype(weight.scheme.dequant_dtype, at::kFloat));
}

PackedLinear::PackedLinear(const nn::LinearSpec& spec, ops::PackedWeight weight, nn::ParameterStore& store)
    : weight_(std::move(weight)), options_(store.shared_options()) {
  SATIN_CHECK(weight_.shape.num_rows == spec.out_features && weight_.shape.num_columns == spec.in_features, spec.name,
              ": a packed weight [", weight_.shape.num_rows, ", ", weight_.shape.num_columns, "]");
  if (spec.bias) bias_ = store.add(spec.name + ".bias", {spec.out_features}, nn::Role::kBias);
}

at::Tensor PackedLinear::forward(const at::Tensor& x) {
  const auto bias = bias_.defined() ? std::optional(bias_.to(x.scalar_type())) : std::nullopt;
  return needs_gradient(x) ? at::linear(x, weight(x.scalar_type()), bias) : ops::packed_linear(x, weight_, bias);
}

at::Tensor PackedLinear::weight(at::ScalarType dtype) {
  return ops::dequantize_rows(weight_, 0, weight_.shape.num_rows, dtype);
}

at::Tensor PackedLinear::lookup(const at::Tensor& indices) {
  std::vector<int64_t> shape = indices.sizes().vec();
  shape.push_back(weight_.shape.num_columns);
  return ops::dequantize_rows(weight_, indices.reshape(-1), options_->compute_dtype).view(shape);
}

nn::PackedParts PackedLinear::packed() {
  return {&weight_, bias_.defined() ? bias_.to(options_->compute_dtype) : at::Tensor()};
}

at::Tensor PackedLinear::logits(const at::Tensor& hidden, at::ScalarType dtype) {
  if (needs_gradient(hidden)) return Linear::logits(hidden, dtype);
  if (hidden.is_cpu() || hidden.scalar_type() == dtype) return ops::packed_linear(hidden.to(dtype), weight_);
  const at::Tensor rows = hidden.reshape({-1, weight_.shape.num_columns});
  const ops::DecodeRows few{.weight = weight_, .dtype = rows.scalar_type(), .x = rows, .wide = true};
  if (dtype == at::kFloat && ops::has_decode_kernel(few)) {
    std::vector<int64_t> shape = hidden.sizes().vec();
    shape.back() = weight_.shape.num_rows;
    return ops::decode_rows(few).view(shape);
  }
  // Logits leave in fp32, which the kernel for many rows does not do.
  constexpr int64_t kPieceRows = 1 << 14;
  std::vector<at::Tensor> pieces;
  for (int64_t first = 0; first < weight_.shape.num_rows; first += kPieceRows)
    pieces.push_back(
        nn::head_logits(hidden,
                        ops::dequantize_rows(weight_, first, std::min(first + kPieceRows, weight_.shape.num_rows),
                                             hidden.scalar_type()),
                        dtype));
  return at::cat(pieces, -1);
}

}  // namespace satin::quant
