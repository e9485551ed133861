// The bits of every layer: minimum of the sum of sensitivities S(l, b_l) with sum n_l b_l <= budget.
// Source: TASA (arXiv 2607.00908), inter-layer allocation; the budget is of bits x parameters, so layers may differ in
// size.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace satin::allocate {

/// One way to quantize a layer.
struct Choice {
  int bits;
  double sensitivity;  ///< relative rise of the error; may be negative
};

struct Layer {
  int64_t num_parameters;
  std::vector<Choice> choices;
};

struct Allocation {
  std::vector<size_t> chosen;  ///< index into each layer's choices
  double sensitivity = 0;      ///< the sum
  int64_t total_bits = 0;      ///< sum of bits x parameters
};

/// Exact: of all allocations within mean_bits (a parameter) the least sum; of equal sums the fewest bits. By dynamic
/// programming over layers on the allocations that no other one beats in both. Throws UserError when even the fewest
/// bits are too many.
Allocation allocate_bits(const std::vector<Layer>& layers, double mean_bits);

}  // namespace satin::allocate
