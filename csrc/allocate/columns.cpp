#include "allocate/columns.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace satin::allocate {

std::vector<int64_t> column_bits(const std::vector<double>& salience, int bits, size_t pairs) {
  SATIN_CHECK(2 * pairs <= salience.size(), pairs, " pairs of ", salience.size(), " groups");
  std::vector<size_t> order(salience.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return salience[a] > salience[b]; });
  std::vector<int64_t> found(salience.size(), bits);
  for (size_t i = 0; i < pairs; ++i) {
    ++found[order[i]];
    --found[order[order.size() - 1 - i]];
  }
  return found;
}

std::vector<size_t> pairs_to_try(size_t num_groups) {
  std::vector<size_t> pairs{0};
  for (size_t count = 1; count < num_groups / 2; count *= 2) pairs.push_back(count);
  if (num_groups > 1) pairs.push_back(num_groups / 2);
  return pairs;
}

ColumnChoice choose_columns(const std::vector<double>& salience, int bits,
                            const std::function<double(const std::vector<int64_t>&)>& error) {
  ColumnChoice best{};
  for (const size_t pairs : pairs_to_try(salience.size())) {
    std::vector<int64_t> found = column_bits(salience, bits, pairs);
    const double now = error(found);
    if (pairs == 0)
      best = {0, std::move(found), now, now};
    else if (now < best.after)
      best = {pairs, std::move(found), best.before, now};
  }
  return best;
}

}  // namespace satin::allocate
