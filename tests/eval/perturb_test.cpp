#include "eval/perturb.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "eval/window_means.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

const std::vector<int32_t> kSpecial = {0, 1, 7};

TEST(Perturb, ReplacesOrdinaryTokensByOthersAtTheRate) {
  const Perturb perturb(20, kSpecial, 3);
  const at::Tensor inputs = at::arange(200 * 100).remainder(20).view({200, 100});
  const at::Tensor some = perturb.substitute(inputs, 0, .05), more = perturb.substitute(inputs, 0, .15);
  const at::Tensor special = (inputs == 0).logical_or(inputs == 1).logical_or(inputs == 7);
  for (const auto& [found, rate] : {std::pair{some, .05}, std::pair{more, .15}}) {
    const at::Tensor changed = found != inputs;
    EXPECT_FALSE(changed.logical_and(special).any().item<bool>());
    const double share = changed.sum().item<double>() / (200 * 100 * 17 / 20.);
    EXPECT_NEAR(share, rate, 4 * std::sqrt(rate / 17000));
    for (int64_t id : kSpecial) EXPECT_FALSE((found == id).logical_and(changed).any().item<bool>());
    const at::Tensor counts = at::bincount(found.masked_select(changed), {}, 20);  // all others are drawn
    EXPECT_GT(counts.masked_select(counts > 0).min().item<int64_t>(), 10);
    EXPECT_EQ((counts > 0).sum().item<int64_t>(), 17);
  }
  EXPECT_TRUE((some == more).logical_or(some == inputs).all().item<bool>());                    // nested
  EXPECT_TRUE(at::equal(perturb.substitute(inputs.slice(0, 50), 50, .15), more.slice(0, 50)));  // by window
  EXPECT_FALSE(at::equal(Perturb(20, kSpecial, 4).substitute(inputs, 0, .15), more));
}

TEST(Perturb, ReplacesOneTokenAWindow) {
  const Perturb perturb(20, kSpecial, 3);
  at::Tensor inputs = at::arange(50 * 20).remainder(20).view({50, 20}).clone();
  inputs[9].fill_(1);
  const auto [found, positions] = perturb.one_token(inputs, 0);
  for (int64_t b = 0; b < 50; ++b) {
    EXPECT_EQ((found[b] != inputs[b]).sum().item<int64_t>(), b == 9 ? 0 : 1);
    if (b == 9)
      EXPECT_EQ(positions[b], 20);
    else
      EXPECT_NE(found[b][positions[b]].item<int64_t>(), inputs[b][positions[b]].item<int64_t>());
  }
  const auto again = perturb.one_token(inputs.slice(0, 30), 30);
  EXPECT_TRUE(at::equal(again.inputs, found.slice(0, 30)));
  EXPECT_TRUE(at::equal(perturb.noise(4, 5, 3), perturb.noise(4, 5, 3)));
  EXPECT_FALSE(at::equal(perturb.noise(4, 5, 3), perturb.noise(5, 5, 3)));
}

TEST(WindowMeans, IntervalOfEqualCountsIsTheTextbooks) {
  WindowMeans means;
  for (double value : {1., 2., 3., 4.}) means.add(10 * value, 10);
  EXPECT_NEAR(means.mean(), 2.5, 1e-12);
  const double error = 1.96 * std::sqrt(5. / 3) / 2;  // deviation 1.291 over sqrt(4)
  EXPECT_NEAR(means.interval().low, 2.5 - error, 1e-12);
  EXPECT_NEAR(means.interval().high, 2.5 + error, 1e-12);
  EXPECT_EQ(means.minus(means).mean(), 0);
  WindowMeans one;
  one.add(1, 2);
  EXPECT_TRUE(std::isnan(one.interval().low));
}

}  // namespace
}  // namespace satin::eval
