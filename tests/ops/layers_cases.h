// The cases of layers.h for values, gradients and devices, and the same functions composed of PyTorch's operators.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "ops/layers.h"

namespace satin::test {

/// Rows and columns for every path of the kernels: part of a warp, a warp, a block, odd ones, long ones, none.
inline const std::vector<std::pair<int64_t, int64_t>>& norm_shapes() {
  static const std::vector<std::pair<int64_t, int64_t>> shapes = {
      {1, 1},    {3, 7},      {70, 64},   {9, 128},  {200, 256}, {33, 512}, {3, 520},
      {2, 1000}, {1100, 512}, {5, 1024},  {1, 1001}, {7, 2048},  {3, 3072}, {2, 4096},
      {2, 5001}, {600, 8192}, {2, 16384}, {0, 64},   {65, 576}};
  return shapes;
}

struct NormTensors {
  at::Tensor x, delta, weight, grad, grad_later;
};
/// fp64; columns of different sizes.
inline NormTensors make_norm(int64_t rows, int64_t columns, uint64_t seed) {
  at::manual_seed(seed);
  const auto random = [&] { return at::randn({rows, columns}, at::kDouble); };
  return {random() * at::exp(at::randn({rows, 1}, at::kDouble)), random(), at::randn({columns}, at::kDouble), random(),
          random()};
}

inline at::Tensor composed_norm(const at::Tensor& s, const at::Tensor& weight, double eps) {
  return s / at::sqrt(s.square().mean(-1, true) + eps) * weight;
}
inline at::Tensor composed_swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return gate / (1 + at::exp(-gate)) * up;
}
inline at::Tensor composed_rotation(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

}  // namespace satin::test
