#include "nn/rope.h"

#include <numbers>

#include "core/error.h"

namespace satin::nn {

at::Tensor inverse_frequencies(const Rope& rope, int64_t head_dim) {
  SATIN_CHECK(head_dim > 0 && head_dim % 2 == 0, "head_dim ", head_dim);
  const at::Tensor exponents = at::arange(0, head_dim, 2, at::kFloat) / head_dim;
  const at::Tensor frequencies = at::reciprocal(at::pow(rope.theta, exponents));
  if (rope.type == "default") return frequencies;
  if (rope.type == "linear") return frequencies / rope.factor;
  SATIN_CHECK(rope.type == "llama3", "rope type ", rope.type);

  const double context = static_cast<double>(rope.original_max_position_embeddings);
  const double low = rope.low_freq_factor, high = rope.high_freq_factor;
  const at::Tensor wavelengths = frequencies.reciprocal() * (2 * std::numbers::pi);
  const at::Tensor smooth = (wavelengths.reciprocal() * context - low) / (high - low);
  const at::Tensor interpolated = (1 - smooth) * frequencies / rope.factor + smooth * frequencies;
  const at::Tensor long_or_medium = at::where(wavelengths > context / low, frequencies / rope.factor, interpolated);
  return at::where(wavelengths < context / high, frequencies, long_or_medium);
}

RopeTables::RopeTables(const Rope& rope, int64_t head_dim, at::Device device, at::ScalarType dtype)
    : frequencies_(inverse_frequencies(rope, head_dim)), device_(device), dtype_(dtype) {}

std::pair<at::Tensor, at::Tensor> RopeTables::slice(int64_t start, int64_t length) {
  const int64_t end = start + length, cached = cos_.defined() ? cos_.size(0) : 0;
  if (end > cached) {
    const int64_t rows = std::max(end, 2 * cached);  // generation asks for one more each time
    const c10::InferenceMode ordinary(false);  // a later training step may save these tables for its backward pass
    const at::Tensor angles = at::arange(rows, at::kFloat).unsqueeze(1) * frequencies_;
    cos_ = angles.cos().to(dtype_).to(device_);
    sin_ = angles.sin().to(dtype_).to(device_);
  }
  return {cos_.narrow(0, start, length), sin_.narrow(0, start, length)};
}

}  // namespace satin::nn
