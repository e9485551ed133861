// Shared by the tests of losses.
#pragma once
#include <gtest/gtest.h>

#include "losses/logit_loss.h"

namespace satin::test {

using losses::LogitChunk;
using losses::LogitLoss;

inline at::Tensor random_logits(int64_t n, int64_t v, uint64_t seed, double spread = 2) {
  at::manual_seed(seed);
  return at::randn({n, v}, at::kDouble) * spread;
}

struct Outcome {
  at::Tensor value, grad;
};
inline Outcome evaluate(const LogitLoss& loss, const LogitChunk& chunk, double scale = 1) {
  at::Tensor grad = at::zeros_like(chunk.student);
  at::Tensor value = loss.accumulate(chunk, scale, grad);
  return {value, grad};
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble).cpu() - b.to(at::kDouble).cpu()).abs().max().item<double>();
}

/// Size of the difference over the size of `want`.
inline double relative_error(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor a = got.to(at::kDouble).cpu(), b = want.to(at::kDouble).cpu();
  return (a - b).norm().item<double>() / std::max(b.norm().item<double>(), 1e-300);
}

}  // namespace satin::test
