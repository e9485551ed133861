// The choice of columns against every choice, where errors of groups add up.
#include "allocate/columns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"

namespace satin::allocate {
namespace {

TEST(Columns, MostSalientGroupsGetMoreAndTheLeastFewer) {
  EXPECT_EQ(column_bits({5, 1, 9, 2}, 3, 0), (std::vector<int64_t>{3, 3, 3, 3}));
  EXPECT_EQ(column_bits({5, 1, 9, 2}, 3, 1), (std::vector<int64_t>{3, 2, 4, 3}));
  EXPECT_EQ(column_bits({5, 1, 9, 2}, 3, 2), (std::vector<int64_t>{4, 2, 4, 2}));
  EXPECT_EQ(column_bits({1, 1, 1}, 4, 1), (std::vector<int64_t>{5, 4, 3})) << "ties: the earlier gets more";
}

TEST(Columns, PairsWorthTrying) {
  EXPECT_EQ(pairs_to_try(0), (std::vector<size_t>{0}));
  EXPECT_EQ(pairs_to_try(1), (std::vector<size_t>{0}));
  EXPECT_EQ(pairs_to_try(2), (std::vector<size_t>{0, 1}));
  EXPECT_EQ(pairs_to_try(3), (std::vector<size_t>{0, 1}));
  EXPECT_EQ(pairs_to_try(8), (std::vector<size_t>{0, 1, 2, 4}));
  EXPECT_EQ(pairs_to_try(14), (std::vector<size_t>{0, 1, 2, 4, 7}));
}

/// With errors s_g 4^-b, ranking by s_g is right: nothing with as many pairs has less.
TEST(Columns, EqualBruteForceWhereErrorsAddUp) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const size_t count = 1 + seed % 7;
    std::vector<double> salience;
    for (size_t i = 0; i < count; ++i) salience.push_back(std::exp(6 * to_uniform(counter_hash({seed, i}))));
    const auto error = [&](const std::vector<int64_t>& bits) {
      double sum = 0;
      for (size_t i = 0; i < count; ++i) sum += salience[i] * std::pow(0.25, static_cast<double>(bits[i]));
      return sum;
    };
    const auto tried = pairs_to_try(count);
    size_t codes = 1;
    for (size_t i = 0; i < count; ++i) codes *= 3;
    double least = 1e300;
    for (size_t code = 0; code < codes; ++code) {
      std::vector<int64_t> bits;
      for (size_t i = 0, rest = code; i < count; ++i, rest /= 3) bits.push_back(2 + static_cast<int64_t>(rest % 3));
      const auto more = static_cast<size_t>(std::ranges::count(bits, 4));
      if (more != static_cast<size_t>(std::ranges::count(bits, 2)) || std::ranges::count(tried, more) == 0) continue;
      least = std::min(least, error(bits));
    }
    const ColumnChoice found = choose_columns(salience, 3, error);
    EXPECT_NEAR(found.after, least, 1e-12 * least) << seed;
    EXPECT_EQ(found.after, error(found.bits));
    EXPECT_EQ(found.before, error(std::vector<int64_t>(count, 3)));
    EXPECT_EQ(std::accumulate(found.bits.begin(), found.bits.end(), int64_t{0}), static_cast<int64_t>(3 * count));
  }
}

TEST(Columns, StayEqualWhereNothingIsWon) {
  const ColumnChoice found = choose_columns({1, 2, 3, 4}, 3, [](const auto&) { return 1.0; });
  EXPECT_EQ(found.pairs, 0u);
  EXPECT_EQ(found.bits, (std::vector<int64_t>{3, 3, 3, 3}));
  EXPECT_EQ(found.before, found.after);
}

}  // namespace
}  // namespace satin::allocate
