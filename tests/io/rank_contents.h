// A model that ranks share in several ways, and what each holds of it.
#pragma once
#include <ATen/Functions.h>

#include "io/checkpoint_fixture.h"
#include "nn/parameters.h"

namespace satin::io {

/// Odd row counts, fewer rows than ranks, scalars, nothing at all, and tensors large enough that ranks which hold the
/// same rows write parts of them.
inline std::vector<std::pair<std::string, at::Tensor>> whole_tensors(double seed) {
  const auto values = [&](at::IntArrayRef shape, at::ScalarType dtype) {
    return at::arange(c10::multiply_integers(shape), at::kDouble).mul(0.37).add(seed).sin().view(shape).to(dtype);
  };
  return {{"embed", values({13, 7}, at::kFloat)},
          {"large", values({701, 500}, at::kFloat)},
          {"short", values({10, 3, 2}, at::kBFloat16)},
          {"few", values({2, 5}, at::kFloat)},
          {"one", values({1, 5}, at::kBFloat16)},
          {"transposed", values({5, 9}, at::kFloat).t()},
          {"bytes", values({9, 3}, at::kFloat).mul(100).to(at::kChar)},
          {"exact", values({11, 2}, at::kDouble)},
          {"norm", values({33}, at::kFloat)},
          {"step", values({}, at::kFloat)},
          {"none", values({0, 4}, at::kFloat)}};
}

/// How ranks share it: "ddp" (each has all), "rows" (as nn::rows_of), "first" (rank 0 has all rows, the others none),
/// "hybrid" (pairs of ranks have the same rows).
inline std::vector<CheckpointTensor> held(const std::string& strategy, int64_t rank, int64_t size, double seed) {
  std::vector<CheckpointTensor> tensors;
  for (const auto& [name, whole] : whole_tensors(seed)) {
    nn::RowRange rows{0, whole.dim() == 0 ? 1 : whole.size(0)};
    if (whole.dim() >= 2) {
      if (strategy == "rows") rows = nn::rows_of({rank, size}, whole.size(0));
      if (strategy == "first" && rank > 0) rows.count = 0;
      if (strategy == "hybrid") rows = nn::rows_of({rank / 2, (size + 1) / 2}, whole.size(0));
    }
    if (whole.dim() == 0)
      tensors.push_back({name, whole});
    else
      tensors.push_back({name, whole.narrow(0, rows.first, rows.count), whole.sizes().vec(), rows.first});
  }
  return tensors;
}

inline CheckpointContents held_contents(const std::filesystem::path& scratch, int64_t step, const std::string& strategy,
                                        int64_t rank, int64_t size) {
  CheckpointContents contents = checkpoint_contents(scratch, step);
  contents.model = held(strategy, rank, size, static_cast<double>(step));
  contents.optimizer = held(strategy, rank, size, static_cast<double>(step) + 0.5);
  return contents;
}

}  // namespace satin::io
