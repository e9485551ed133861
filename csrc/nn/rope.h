// Angles of the rotary position embedding (Su et al. 2021); ops/layers.h rotates by them.
#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>

namespace satin::nn {

/// Base and scaling of the rotation frequencies. "linear" divides them by `factor`; "llama3" divides those whose
/// wavelength exceeds original_max_position_embeddings / low_freq_factor, keeps those below ... / high_freq_factor and
/// interpolates between.
struct Rope {
  double theta = 10000;
  std::string type = "default";  ///< default | linear | llama3
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_position_embeddings = 8192;
};

/// Radians a position, [head_dim / 2] fp32 on the CPU, rounded step by step as transformers' modeling_rope_utils does
/// (fp32), so that tables agree to the last bit even at large positions. Throws InternalError on an unknown type.
at::Tensor inverse_frequencies(const Rope& rope, int64_t head_dim);

/// cos and sin of every position times frequency; grown when a longer sequence comes, kept on one device.
class RopeTables {
 public:
  RopeTables(const Rope& rope, int64_t head_dim, at::Device device, at::ScalarType dtype);
  /// cos, sin [length, head_dim / 2] of positions start ... start + length - 1: views of the cached tables.
  std::pair<at::Tensor, at::Tensor> slice(int64_t start, int64_t length);

 private:
  at::Tensor frequencies_, cos_, sin_;
  at::Device device_;
  at::ScalarType dtype_;
};

}  // namespace satin::nn
