#include "nn/joined_linear.h"

#include <ATen/ATen.h>

namespace satin::nn {
namespace {

at::Tensor summed(const Stream& stream) {
  return stream.second.defined() ? stream.first + stream.second : stream.first;
}

}  // namespace

JoinedLinear::JoinedLinear(std::vector<Linear*> parts, const RmsNorm& norm)
    : parts_(std::move(parts)), norm_weight_(norm.statistics_weight()), norm_eps_(norm.eps()) {
  std::vector<ops::PackedWeight*> weights;
  std::vector<at::Tensor> biases;
  for (Linear* part : parts_) {
    const PackedParts packed = part->packed();
    if (!packed.weight) return;
    weights.push_back(packed.weight);
    if (packed.bias.defined()) biases.push_back(packed.bias);
  }
  if (!biases.empty() && biases.size() != parts_.size()) return;
  joined_ = ops::join_rows(weights);
  if (!joined_) return;
  if (!biases.empty()) bias_ = at::cat(biases);
  for (const ops::PackedWeight* weight : weights) sizes_.push_back(weight->shape.num_rows);
}

at::Tensor JoinedLinear::multiply(const at::Tensor& stream, at::ScalarType dtype, bool gated) const {
  return ops::decode_rows({.weight = *joined_,
                           .dtype = dtype,
                           .x = stream,
                           .norm_weight = norm_weight_,
                           .norm_eps = norm_eps_,
                           .bias = bias_,
                           .gated = gated});
}

JoinedLinear::Result JoinedLinear::forward(const Stream& stream, at::ScalarType dtype) const {
  if (joined_) {
    const at::Tensor sum = summed(stream);
    return {sum, multiply(sum, dtype, /*gated=*/false).split_with_sizes(sizes_, -1)};
  }
  const ops::RmsNormResult normed = ops::rms_norm(stream.first, stream.second, norm_weight_, norm_eps_, dtype);
  Result result{normed.sum, {}};
  for (Linear* part : parts_) result.parts.push_back(part->forward(normed.y));
  return result;
}

std::pair<at::Tensor, at::Tensor> JoinedLinear::gated(const Stream& stream, at::ScalarType dtype) const {
  if (joined_) {
    const at::Tensor sum = summed(stream);
    return {multiply(sum, dtype, /*gated=*/true), sum};
  }
  const Result result = forward(stream, dtype);
  return {ops::swiglu(result.parts[0], result.parts[1]), result.stream};
}

Stream added(Linear& layer, const at::Tensor& stream, const at::Tensor& x) {
  const PackedParts packed = layer.packed();
  if (!packed.weight) return {stream, layer.forward(x)};
  return {ops::decode_rows({.weight = *packed.weight,
                            .dtype = x.scalar_type(),
                            .x = x,
                            .bias = packed.bias,
                            .wide = true,
                            .residual = stream}),
          {}};
}

}  // namespace satin::nn
