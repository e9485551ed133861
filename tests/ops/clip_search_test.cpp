// The search against brute force over the published ladder of ratios, in fp64; the composed search (CUDA's) against the
// CPU kernel.
#include <gtest/gtest.h>

#include "ops/clip_search_composed.h"
#include "ops/fake_quant_cases.h"

namespace satin::test {
namespace {
using ops::Grid;
using ops::Rounding;

at::Tensor to_bfloat16_and_back(const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); }

/// Squared error of each group for given parameters, in fp64, from the formulas.
at::Tensor group_errors(const at::Tensor& groups, Grid kind, int bits, const at::Tensor& a, const at::Tensor& z) {
  const at::Tensor w = groups.to(at::kDouble), s = a.to(at::kDouble).unsqueeze(-1), u = w / s;
  const double top = (1 << bits) - 1, half = 1 << (bits - 1);
  at::Tensor q;
  if (kind == Grid::kSymmetric) q = at::clamp(at::round(u), -half, half - 1);
  if (kind == Grid::kAsymmetric) {
    const at::Tensor zero = z.to(at::kDouble).unsqueeze(-1);
    q = at::clamp(at::round(u) + zero, 0, top) - zero;
  }
  if (kind == Grid::kSeq) q = (at::round(2 * at::clamp(u, -0.99, 0.99) - 0.5) + 0.5) / 2;
  if (kind == Grid::kTernary) q = at::round(1.5 * at::clamp(u, -0.99, 0.99)) / 1.5;
  return (q * s - w).square().sum(-1);
}

/// The least error over the ladder.
at::Tensor brute_force(const at::Tensor& groups, Grid kind, int bits) {
  const at::Tensor low = groups.amin(-1).clamp_max(0), high = groups.amax(-1).clamp_min(0);
  const at::Tensor largest = groups.abs().amax(-1);
  const double top = (1 << bits) - 1;
  at::Tensor best;
  const bool asymmetric = kind == Grid::kAsymmetric;
  for (int i = asymmetric ? 50 : 60; i >= (asymmetric ? 15 : 10); --i) {
    const double ratio = i / 50.0;
    at::Tensor a, z;
    if (asymmetric) {
      a = to_bfloat16_and_back(((high * ratio - low * ratio) / top).clamp_min(1e-5));
      z = at::clamp(at::round(-low * ratio / a), 0, top);
    } else if (kind == Grid::kSymmetric) {
      a = to_bfloat16_and_back((largest * ratio / ((1 << (bits - 1)) - 1)).clamp_min(1e-5));
    } else if (kind == Grid::kSeq) {
      a = to_bfloat16_and_back((largest * ratio).clamp_min(1e-5));
    } else {
      a = to_bfloat16_and_back((largest * ratio).clamp_min(1e-5) * (2.0 / 3)) * 1.5;
    }
    const at::Tensor error = group_errors(groups, kind, bits, a, z);
    best = best.defined() ? at::minimum(best, error) : error;
  }
  return best;
}

TEST(ClipSearch, FindsTheLadderBest) {
  at::manual_seed(31);
  for (const auto& [kind, bits] : std::vector<std::pair<Grid, int>>{{Grid::kSymmetric, 2},
                                                                    {Grid::kSymmetric, 3},
                                                                    {Grid::kAsymmetric, 2},
                                                                    {Grid::kAsymmetric, 3},
                                                                    {Grid::kAsymmetric, 4},
                                                                    {Grid::kSeq, 2},
                                                                    {Grid::kTernary, 2}}) {
    for (int64_t group : {20, 64, 128}) {
      SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(kind) << ", " << bits << " bits, group " << group);
      at::Tensor w = at::randn({24, group * 4}) * 0.02;
      w[0] *= 50;
      w[1].zero_();
      w[2].abs_();
      const ops::FakeQuantGrid grid{kind, bits, group};
      const at::Tensor groups = w.view({24, 4, group});
      const at::Tensor best = brute_force(groups, kind, bits);
      const ops::ClipSearchResult kernel = ops::clip_search(w, grid);
      const auto [scale, zero] = ops::clip_search_composed(w, grid);
      for (const auto& [s, z] : {std::pair(kernel.scale, kernel.zero_point), std::pair(scale, zero)}) {
        const at::Tensor error = group_errors(groups, kind, bits, s, z);
        // fp32 sums may prefer a candidate that is worse by rounding.
        EXPECT_TRUE((error <= best * (1 + 1e-5) + 1e-12).all().item<bool>());
      }
      EXPECT_GT((kernel.scale == scale).to(at::kFloat).mean().item<float>(), 0.98) << "apart from near ties";
      EXPECT_EQ(kernel.zero_point.defined(), kind == Grid::kAsymmetric);
    }
  }
}

TEST(ClipSearch, TheForwardUsesTheScaleThatItFound) {
  at::manual_seed(32);
  const at::Tensor w = at::randn({16, 128});
  for (Grid kind : {Grid::kSymmetric, Grid::kAsymmetric, Grid::kSeq, Grid::kTernary})
    for (Rounding storage : {Rounding::kBFloat16, Rounding::kFloat16}) {
      const ops::FakeQuantGrid grid{kind, 2, 64, storage, storage};
      const at::Tensor scale = ops::clip_search(w, grid).scale;
      EXPECT_TRUE(at::equal(ops::effective_scale(scale, grid), scale));
    }
}

TEST(ClipSearch, NaNGivesNaNScales) {
  at::Tensor w = at::randn({2, 64});
  w[1][5] = std::nan("");
  const at::Tensor scale = ops::clip_search(w, {ops::Grid::kAsymmetric, 2, 64}).scale;
  EXPECT_FALSE(scale[0].isnan().any().item<bool>());
  EXPECT_TRUE(scale[1].isnan().all().item<bool>());
}

}  // namespace
}  // namespace satin::test
