#include "core/random.h"

#include <gtest/gtest.h>

#include <array>

namespace satin {

// SplitMix64's published sequence from seed 1234567 (Vigna's reference code, first outputs).
TEST(Random, MixMatchesSplitMix64) {
  uint64_t state = 1234567;
  const std::array<uint64_t, 3> want = {6457827717110365317ull, 3203168211198807973ull, 9817491932198370423ull};
  for (uint64_t w : want) {
    EXPECT_EQ(mix64(state), w);
    state += 0x9e3779b97f4a7c15ull;
  }
}

TEST(Random, UniformInBins) {
  std::array<int, 16> bins{};
  constexpr int kDraws = 160000;
  for (uint64_t i = 0; i < kDraws; ++i) ++bins[static_cast<size_t>(to_uniform(counter_hash({7, i})) * 16)];
  double chi2 = 0;
  for (int n : bins) chi2 += (n - kDraws / 16.0) * (n - kDraws / 16.0) / (kDraws / 16.0);
  EXPECT_LT(chi2, 37.7);  // 15 degrees of freedom, p = .001
}

TEST(Random, CountersMatterInOrder) {
  EXPECT_NE(counter_hash({1, 2}), counter_hash({2, 1}));
  EXPECT_NE(counter_hash({0}), counter_hash({0, 0}));
  EXPECT_LT(to_index(~0ull, 10), 10u);
}

}  // namespace satin
