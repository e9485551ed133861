// What ranks hold in tests of collectives, and its sum: over the ranks in their order, in fp32 or fp64, rounded once.
#pragma once
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <string>

#include "core/error.h"

namespace satin::test {

/// Values that round in every addition.
inline at::Tensor rank_values(int64_t rank, int64_t n, at::ScalarType dtype) {
  auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(100 + rank));
  return at::randn({n}, generator, at::kDouble).mul(1 + static_cast<double>(rank)).to(dtype);
}

inline at::Tensor sum_of_ranks(int64_t size, int64_t n, at::ScalarType dtype) {
  at::Tensor sum = rank_values(0, n, dtype).to(dtype == at::kBFloat16 ? at::kFloat : dtype);
  for (int64_t rank = 1; rank < size; ++rank) sum = sum + rank_values(rank, n, dtype).to(sum.scalar_type());
  return sum.to(dtype);
}

/// The same of values that are sent and summed in bf16.
inline at::Tensor bf16_sum_of_ranks(int64_t size, int64_t n, at::ScalarType dtype) {
  const auto sent = [&](int64_t rank) { return rank_values(rank, n, dtype).to(at::kBFloat16).to(at::kFloat); };
  at::Tensor sum = sent(0);
  for (int64_t rank = 1; rank < size; ++rank) sum = sum + sent(rank);
  return sum.to(at::kBFloat16).to(dtype);
}

/// In a rank, where GoogleTest's macros would not be heard.
inline void check(bool condition, const std::string& what) {
  if (!condition) throw InternalError(what);
}

}  // namespace satin::test
