// The dynamic programme against brute force; the controls; the mixture against its formula.
#include "allocate/allocation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <set>

#include "allocate/controls.h"
#include "allocate/mixture.h"
#include "allocate/rank_correlation.h"
#include "core/error.h"
#include "core/random.h"

namespace satin::allocate {
namespace {

/// Layers of different sizes with sensitivities that need not fall with bits.
std::vector<Layer> random_layers(uint64_t seed, size_t count, bool coarse) {
  std::vector<Layer> layers;
  for (size_t i = 0; i < count; ++i) {
    Layer layer{static_cast<int64_t>(64 * (1 + to_index(counter_hash({seed, i, 0}), 5))), {}};
    for (const int bits : {2, 3, 4, 8}) {
      const double noise = to_uniform(counter_hash({seed, i, static_cast<uint64_t>(bits)})) - 0.1;
      layer.choices.push_back({bits, coarse ? std::floor(noise * 4) : noise / bits});  // coarse: many equal sums
    }
    layers.push_back(layer);
  }
  return layers;
}

/// All 4^n allocations: the least sum, of equal ones the fewest bits.
std::optional<std::pair<double, int64_t>> brute_force(const std::vector<Layer>& layers, double mean_bits) {
  int64_t parameters = 0;
  for (const Layer& layer : layers) parameters += layer.num_parameters;
  std::optional<std::pair<double, int64_t>> best;
  for (size_t code = 0; code < (size_t{1} << (2 * layers.size())); ++code) {
    double sum = 0;
    int64_t bits = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      const Choice& choice = layers[i].choices[(code >> (2 * i)) & 3];
      sum += choice.sensitivity;
      bits += choice.bits * layers[i].num_parameters;
    }
    if (static_cast<double>(bits) > mean_bits * static_cast<double>(parameters) + 1e-6) continue;
    if (!best || sum < best->first - 1e-12 || (sum < best->first + 1e-12 && bits < best->second)) best = {sum, bits};
  }
  return best;
}

TEST(Allocation, EqualsBruteForce) {
  for (uint64_t seed = 0; seed < 40; ++seed)
    for (const double mean_bits : {2.0, 2.5, 3.0, 3.7, 8.0}) {
      const auto layers = random_layers(seed, 1 + seed % 6, seed % 2 == 0);
      const auto wanted = brute_force(layers, mean_bits);
      ASSERT_TRUE(wanted);
      const Allocation found = allocate_bits(layers, mean_bits);
      EXPECT_NEAR(found.sensitivity, wanted->first, 1e-12) << seed << " " << mean_bits;
      EXPECT_EQ(found.total_bits, wanted->second) << seed << " " << mean_bits;
      double sum = 0;
      for (size_t i = 0; i < layers.size(); ++i) sum += layers[i].choices[found.chosen[i]].sensitivity;
      EXPECT_NEAR(sum, found.sensitivity, 1e-12);
    }
  EXPECT_THROW(allocate_bits(random_layers(0, 3, false), 1.9), UserError);
}

TEST(Allocation, IsFastForDeepModels) {
  const Allocation found = allocate_bits(random_layers(1, 80, false), 3);
  EXPECT_EQ(found.chosen.size(), 80u);
}

TEST(Controls, KeepTheBudget) {
  const auto layers = random_layers(3, 12, false);
  int64_t parameters = 0;
  for (const Layer& layer : layers) parameters += layer.num_parameters;
  const Allocation uniform = uniform_bits(layers, 3.5);
  EXPECT_EQ(uniform.total_bits, 3 * parameters);
  EXPECT_THROW(uniform_bits(layers, 1.5), UserError);
  std::set<std::vector<size_t>> seen;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const Allocation random = random_bits(layers, 3.5, seed);
    EXPECT_LE(random.total_bits, 3.5 * static_cast<double>(parameters));
    EXPECT_GT(random.total_bits, 3.1 * static_cast<double>(parameters));
    EXPECT_GE(random.sensitivity, allocate_bits(layers, 3.5).sensitivity);
    EXPECT_EQ(random.chosen, random_bits(layers, 3.5, seed).chosen);
    seen.insert(random.chosen);
  }
  EXPECT_EQ(seen.size(), 3u);
}

TEST(Mixture, HasTheGreatestCosineWithinItsBounds) {
  // The reference is a mixture itself: half and half.
  const std::vector<double> general{1, 2, 10}, task{8, 1, 1}, reference{4.5, 1.5, 5.5};
  const Mixture found = best_mixture(general, task, reference);
  EXPECT_EQ(found.general_share, 0.5);
  EXPECT_NEAR(found.cosines[2], 1, 1e-12);
  EXPECT_NEAR(found.cosines[0], (8 * 4.5 + 1.5 + 5.5) / std::sqrt(66 * (4.5 * 4.5 + 1.5 * 1.5 + 5.5 * 5.5)), 1e-12);
  EXPECT_EQ(best_mixture(general, task, task).general_share, 0.25);
  EXPECT_EQ(best_mixture(general, task, general).general_share, 0.75);
}

/// The third is the example of SciPy's documentation (scipy.stats.kendalltau).
TEST(RankCorrelation, IsKendallsTauB) {
  EXPECT_EQ(kendall_tau({1, 2, 3, 4}, {10, 20, 30, 40}), 1);
  EXPECT_EQ(kendall_tau({1, 2, 3, 4}, {4, 3, 2, 1}), -1);
  EXPECT_NEAR(kendall_tau({12, 2, 1, 12, 2}, {1, 4, 7, 1, 0}), -0.47140452079103173, 1e-15);
  EXPECT_TRUE(std::isnan(kendall_tau({1, 1, 1}, {1, 2, 3})));
}

}  // namespace
}  // namespace satin::allocate
