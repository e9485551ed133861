// Inside a layer: which groups of columns have a bit more than the layer, and which as many fewer.
// Source: TASA (arXiv 2607.00908), intra-layer step, after SliM-LLM (Huang et al. 2024): b - 1, b or b + 1 bits with
// the mean preserved, by sum (w' - w)^2 / [H^-1]_jj over a group's weights.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace satin::allocate {

/// The `pairs` groups of the greatest salience have bits + 1, those of the least bits - 1; of equal ones the earlier
/// counts as greater. At most half as many pairs as groups.
std::vector<int64_t> column_bits(const std::vector<double>& salience, int bits, size_t pairs);

/// Pairs worth trying: 0, 1, 2, 4, ... and half the groups.
std::vector<size_t> pairs_to_try(size_t num_groups);

struct ColumnChoice {
  size_t pairs;
  std::vector<int64_t> bits;  ///< of each group
  double before, after;       ///< the layer's error with equal bits, and with these
};

/// Of the pairs to try those of the least error(bits of each group); of equal errors the fewest. So `after` is never
/// above `before`.
ColumnChoice choose_columns(const std::vector<double>& salience, int bits,
                            const std::function<double(const std::vector<int64_t>&)>& error);

}  // namespace satin::allocate
