#include "data/sampler.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "support/test_support.h"

namespace satin::data {
namespace {

std::vector<Sample> draw(Sampler& sampler, size_t n) {
  std::vector<Sample> out;
  for (size_t i = 0; i < n; ++i) out.push_back(sampler.next());
  return out;
}

TEST(Permute, IsABijection) {
  for (uint64_t n = 1; n <= 300; ++n) {
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < n; ++i) {
      EXPECT_LT(permute(i, n, n * 7), n);
      seen.insert(permute(i, n, n * 7));
    }
    ASSERT_EQ(seen.size(), n);
  }
  constexpr uint64_t kLarge = 1'000'003;
  std::vector<bool> seen(kLarge);
  for (uint64_t i = 0; i < kLarge; ++i) seen[permute(i, kLarge, 5)] = true;
  EXPECT_EQ(std::count(seen.begin(), seen.end(), true), kLarge);
  constexpr uint64_t kHuge = 1ull << 62;
  EXPECT_LT(permute(kHuge - 1, kHuge, 1), kHuge);
}

TEST(Permute, AgreesWithPython) {
  for (const char* arguments : {"1000 12345678901234567890", "5 0", "2 3"}) {
    const auto python = test::run_python(std::string("data/permute.py ") + arguments);
    ASSERT_EQ(python.exit_code, 0) << python.output;
    const auto expected = nlohmann::json::parse(python.output).get<std::vector<uint64_t>>();
    const uint64_t key = std::stoull(std::string(arguments).substr(std::string(arguments).find(' ')));
    for (uint64_t i = 0; i < expected.size(); ++i) EXPECT_EQ(permute(i, expected.size(), key), expected[i]);
  }
}

TEST(Permute, OrdersAreEquallyLikely) {  // all 120 orders of 5 things: chi-square with 119 degrees of freedom
  std::map<std::vector<uint64_t>, int> counts;
  constexpr int kKeys = 120'000;
  for (int key = 0; key < kKeys; ++key) {
    std::vector<uint64_t> order;
    for (uint64_t i = 0; i < 5; ++i) order.push_back(permute(i, 5, mix64(key)));
    ++counts[order];
  }
  ASSERT_EQ(counts.size(), 120u);
  double chi_square = 0;
  for (const auto& [order, count] : counts) chi_square += std::pow(count - kKeys / 120.0, 2) / (kKeys / 120.0);
  EXPECT_LT(chi_square, 119 + 5 * std::sqrt(2 * 119.0));
}

TEST(Permute, NeighboursAreSpread) {  // the mean distance of two independent places is n / 3
  constexpr uint64_t kN = 5000;
  double sum = 0;
  for (uint64_t i = 0; i + 1 < kN; ++i)
    sum += std::abs(static_cast<double>(permute(i, kN, 9)) - static_cast<double>(permute(i + 1, kN, 9)));
  EXPECT_NEAR(sum / (kN - 1), kN / 3.0, 0.05 * kN / 3.0);
}

TEST(Sampler, EveryWindowOnceAnEpoch) {
  constexpr uint64_t kWindows = 37;
  Sampler sampler({{kWindows}}, {.seed = 3});
  std::vector<std::vector<uint64_t>> orders;
  for (uint64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<uint64_t> order;
    for (const Sample& sample : draw(sampler, kWindows)) {
      EXPECT_EQ(sample.epoch, epoch);
      EXPECT_EQ(sample.id, epoch * kWindows + order.size());
      order.push_back(sample.window);
    }
    EXPECT_EQ(std::set<uint64_t>(order.begin(), order.end()).size(), kWindows);
    EXPECT_LT(*std::max_element(order.begin(), order.end()), kWindows);
    for (const auto& earlier : orders) EXPECT_NE(earlier, order);
    orders.push_back(order);
  }
  Sampler other({{kWindows}}, {.seed = 4});
  EXPECT_NE(draw(other, 1)[0].window + draw(other, 2)[1].window * 100, orders[0][0] + orders[0][2] * 100);
  Sampler in_order({{kWindows}}, {.seed = 3, .shuffle = false});
  for (uint64_t i = 0; i < 3 * kWindows; ++i) EXPECT_EQ(in_order.next().window, i % kWindows);
}

TEST(Sampler, SharesFollowTheWeights) {
  const std::vector<double> weights = {0.85, 0.15, 3, 0.001, 1.7};
  double total = 0;
  std::vector<Sampler::Source> sources;
  for (const double weight : weights) {
    sources.push_back({100, weight});
    total += weight;
  }
  Sampler sampler(sources, {});
  std::vector<double> counts(weights.size());
  for (int i = 1; i <= 50'000; ++i) {
    ++counts[sampler.next().source];
    for (size_t s = 0; s < weights.size(); ++s) ASSERT_LT(std::abs(counts[s] - weights[s] / total * i), 2) << i;
  }
  for (size_t s = 0; s < weights.size(); ++s) EXPECT_NEAR(sampler.share(s), weights[s] / total, 1e-9);
}

TEST(Sampler, WithoutWeightsAnEpochIsEveryWindowOfEverySource) {
  const std::vector<uint64_t> sizes = {1, 1000, 13, 250, 7};
  std::vector<Sampler::Source> sources;
  for (const uint64_t size : sizes) sources.push_back({size});
  Sampler sampler(sources, {.seed = 1});
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::pair<uint32_t, uint64_t>> seen;
    for (const Sample& sample : draw(sampler, 1271)) {
      EXPECT_EQ(sample.epoch, epoch);
      seen.insert({sample.source, sample.window});
    }
    EXPECT_EQ(seen.size(), 1271u);
  }
}

TEST(Sampler, ResumesAnywhere) {
  const std::vector<Sampler::Source> sources = {{5, 1}, {11, 2}, {3, 0.5}};
  const Sampler::Options options{.seed = 8, .data_checksum = 77};
  Sampler whole(sources, options);
  const std::vector<Sample> expected = draw(whole, 200);
  Sampler walker(sources, options);
  for (size_t i = 0; i < 200; ++i) {
    const std::string saved = walker.position().to_json().dump();
    Sampler resumed(sources, options);
    resumed.seek(Position::from_json(nlohmann::json::parse(saved), "checkpoint"));
    EXPECT_EQ(resumed.position(), walker.position());
    for (size_t k = i; k < std::min<size_t>(i + 20, 200); ++k) {
      const Sample sample = resumed.next();
      ASSERT_TRUE(sample.id == expected[k].id && sample.source == expected[k].source &&
                  sample.window == expected[k].window && sample.epoch == expected[k].epoch)
          << i << " " << k;
    }
    walker.next();
  }
  walker.seek({});  // the start
  EXPECT_EQ(walker.next().window, expected[0].window);
}

TEST(Sampler, RefusesAPositionInOtherData) {
  Sampler sampler({{5}, {6}}, {.data_checksum = 1});
  sampler.next();
  const Position good = sampler.position();
  const auto refused = [&](Position position, const char* why) {
    try {
      sampler.seek(position);
      ADD_FAILURE() << why;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  refused({good.sample, {1}, 1}, "read 1 sources");
  refused({good.sample, good.drawn, 2}, "differ");
  refused({9, good.drawn, 1}, "damaged");
  refused({0, {1, ~uint64_t{0}}, 1}, "damaged");
  EXPECT_THROW(Position::from_json({{"sample", 1}}, "x"), UserError);
  EXPECT_THROW(Position::from_json({{"sample", "a"}, {"drawn", {1}}, {"data_checksum", 0}}, "x"), UserError);
}

TEST(Sampler, RefusesWrongWeights) {
  EXPECT_THROW(Sampler({{5, 1}, {6, 0}}, {}), UserError);
  EXPECT_THROW(Sampler({{5, -1}}, {}), UserError);
  EXPECT_THROW(Sampler({{5, NAN}}, {}), UserError);
}

}  // namespace
}  // namespace satin::data
