// The search, plain and weighted, against brute force over the published ladder of ratios in fp64.
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "ops/fake_quant_cases.h"

namespace satin::test {
namespace {
using ops::Grid;
using ops::Rounding;

at::Tensor to_bfloat16_and_back(const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); }

struct Case {
  Grid kind;
  int bits;
};
constexpr Case kCases[] = {{Grid::kSymmetric, 2},  {Grid::kSymmetric, 3},  {Grid::kSymmetric, 8},
                           {Grid::kAsymmetric, 2}, {Grid::kAsymmetric, 3}, {Grid::kAsymmetric, 4},
                           {Grid::kSeq, 2},        {Grid::kTernary, 2},    {Grid::kBinary, 1},
                           {Grid::kBitNet, 2}};

/// Weighted squared error of each group [N, G, group] for given parameters, in fp64, from the formulas; importance
/// [G, group].
at::Tensor group_errors(const at::Tensor& groups, const at::Tensor& importance, Case c, const at::Tensor& a,
                        const at::Tensor& z) {
  const at::Tensor w = groups.to(at::kDouble), s = a.to(at::kDouble).unsqueeze(-1), u = w / s;
  const double top = (1 << c.bits) - 1, half = 1 << (c.bits - 1);
  at::Tensor q;
  if (c.kind == Grid::kSymmetric) q = at::clamp(at::round(u), -half, half - 1);
  if (c.kind == Grid::kAsymmetric) {
    const at::Tensor zero = z.to(at::kDouble).unsqueeze(-1);
    q = at::clamp(at::round(u) + zero, 0, top) - zero;
  }
  if (c.kind == Grid::kSeq) q = (at::round(2 * at::clamp(u, -0.99, 0.99) - 0.5) + 0.5) / 2;
  if (c.kind == Grid::kTernary) q = at::round(1.5 * at::clamp(u, -0.99, 0.99)) / 1.5;
  if (c.kind == Grid::kBinary) q = (u >= 0) * 2.0 - 1;
  if (c.kind == Grid::kBitNet) q = at::round(at::clamp(u, -1, 1));
  return ((q * s - w).square() * importance.to(at::kDouble)).sum(-1);
}

/// The least error over the ladder.
at::Tensor brute_force(const at::Tensor& groups, const at::Tensor& importance, Case c) {
  const at::Tensor low = groups.amin(-1).clamp_max(0), high = groups.amax(-1).clamp_min(0);
  const at::Tensor largest = groups.abs().amax(-1);
  const double top = (1 << c.bits) - 1;
  at::Tensor best;
  const bool asymmetric = c.kind == Grid::kAsymmetric;
  for (int i = asymmetric ? 50 : 60; i >= (asymmetric ? 15 : 10); --i) {
    const double ratio = i / 50.0;
    at::Tensor a, z;
    if (asymmetric) {
      a = to_bfloat16_and_back(((high * ratio - low * ratio) / top).clamp_min(1e-5));
      z = at::clamp(at::round(-low * ratio / a), 0, top);
    } else if (c.kind == Grid::kSymmetric) {
      a = to_bfloat16_and_back((largest * ratio / ((1 << (c.bits - 1)) - 1)).clamp_min(1e-5));
    } else if (c.kind == Grid::kTernary) {
      a = to_bfloat16_and_back((largest * ratio).clamp_min(1e-5) * (2.0 / 3)) * 1.5;
    } else {
      a = to_bfloat16_and_back((largest * ratio).clamp_min(1e-5));
    }
    const at::Tensor error = group_errors(groups, importance, c, a, z);
    best = best.defined() ? at::minimum(best, error) : error;
  }
  return best;
}

/// Mean squares of activations, as they are: a few columns have most of it, some have none.
at::Tensor make_importance(int64_t columns) {
  const at::Tensor importance = at::randn({columns}).exp().square();
  return importance.index_put({at::rand({columns}) < 0.1}, at::zeros({}));
}

TEST(ClipSearch, FindsTheLadderBest) {
  at::manual_seed(31);
  for (const Case& c : kCases)
    for (const int64_t group : {1, 20, 64, 128, 1000, 11008})
      for (const bool weighted : {false, true}) {
        SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(c.kind) << ", " << c.bits << " bits, group "
                                        << group << ", weighted " << weighted);
        const int64_t rows = group < 1000 ? 24 : 4, num_groups = group < 1000 ? 4 : 2;
        at::Tensor w = at::randn({rows, group * num_groups}) * 0.02;
        w[0] *= 50;
        w[1].zero_();
        w[2].abs_();
        const at::Tensor importance = weighted ? make_importance(w.size(1)) : at::ones({w.size(1)});
        const ops::ClipSearchResult found =
            ops::clip_search(w, {c.kind, c.bits, group}, weighted ? std::optional(importance) : std::nullopt);
        const at::Tensor groups = w.view({rows, num_groups, group}), columns = importance.view({num_groups, group});
        const at::Tensor best = brute_force(groups, columns, c);
        const at::Tensor error = group_errors(groups, columns, c, found.scale, found.zero_point);
        // fp32 sums may prefer a candidate that is worse by rounding.
        EXPECT_TRUE((error <= best * (1 + 1e-5) + 1e-12).all().item<bool>());
        EXPECT_EQ(found.zero_point.defined(), c.kind == Grid::kAsymmetric);
      }
}

bool same(const ops::ClipSearchResult& a, const ops::ClipSearchResult& b) {
  return at::equal(a.scale, b.scale) && (!a.zero_point.defined() || at::equal(a.zero_point, b.zero_point));
}

TEST(ClipSearch, ImportanceOfOneOrOfNothingIsNone) {
  at::manual_seed(33);
  for (const Case& c : kCases)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble})
      for (const int64_t group : {20, 64, 1000}) {
        const at::Tensor w = at::randn({6, group * 2}).to(dtype);
        const ops::FakeQuantGrid grid{c.kind, c.bits, group};
        const ops::ClipSearchResult plain = ops::clip_search(w, grid);
        const at::Tensor ones = at::ones({group * 2});
        EXPECT_TRUE(same(ops::clip_search(w, grid, ones), plain));
        EXPECT_TRUE(same(ops::clip_search(w, grid, ones * 0.25), plain)) << "a power of two changes no rounding";
        EXPECT_TRUE(same(ops::clip_search(w, grid, at::Tensor()), plain));
        // The second group of each row has no importance, the first has.
        const at::Tensor half = at::cat({make_importance(group) + 0.1, at::zeros({group})});
        const ops::ClipSearchResult found = ops::clip_search(w, grid, half);
        EXPECT_TRUE(at::equal(found.scale.select(1, 1), plain.scale.select(1, 1)));
        const ops::ClipSearchResult alone = ops::clip_search(w.narrow(1, 0, group), grid, half.narrow(0, 0, group));
        EXPECT_TRUE(at::equal(found.scale.select(1, 0), alone.scale.select(1, 0))) << "each group has its columns";
      }
}

TEST(ClipSearch, IgnoresColumnsOfNoImportance) {
  at::manual_seed(34);
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(c.kind) << ", " << c.bits << " bits");
    at::Tensor w = at::randn({16, 64}) * 0.02;
    w.clamp_(-0.05, 0.05);
    // The first two columns hold the range, the next eight are outliers within it; none of them matters.
    at::Tensor importance = at::ones({64});
    importance.narrow(0, 0, 10).zero_();
    w.select(1, 0).fill_(-0.1);
    w.select(1, 1).fill_(0.1);
    at::Tensor other = w.clone();
    w.narrow(1, 2, 8).fill_(0.09);
    other.narrow(1, 2, 8).fill_(-0.06);
    const ops::FakeQuantGrid grid{c.kind, c.bits, 64};
    const ops::ClipSearchResult found = ops::clip_search(w, grid, importance), plain = ops::clip_search(w, grid);
    EXPECT_TRUE(same(found, ops::clip_search(other, grid, importance)));
    const at::Tensor groups = w.view({16, 1, 64}), rest = importance.view({1, 64});
    const at::Tensor error = group_errors(groups, rest, c, found.scale, found.zero_point);
    const at::Tensor unaware = group_errors(groups, rest, c, plain.scale, plain.zero_point);
    EXPECT_TRUE((error <= unaware * (1 + 1e-5)).all().item<bool>());
    EXPECT_LT(error.sum().item<double>(), 0.9 * unaware.sum().item<double>());
  }
}

TEST(ClipSearch, RefusesImportanceThatDoesNotFit) {
  const at::Tensor w = at::randn({2, 64}), ones = at::ones({64});
  const ops::FakeQuantGrid grid{Grid::kSeq, 2, 32};
  for (const at::Tensor& wrong :
       {at::ones({32}), at::ones({1, 64}), -ones, ones * std::nan(""), ones / 0, ones.to(at::kDouble) * 1e300})
    EXPECT_THROW(ops::clip_search(w, grid, wrong), InternalError);
}

TEST(ClipSearch, TheForwardUsesTheScaleThatItFound) {
  at::manual_seed(32);
  const at::Tensor w = at::randn({16, 128});
  for (Grid kind : {Grid::kSymmetric, Grid::kAsymmetric, Grid::kSeq, Grid::kTernary})
    for (Rounding storage : {Rounding::kBFloat16, Rounding::kFloat16}) {
      const ops::FakeQuantGrid grid{kind, 2, 64, storage, storage};
      const ops::ClipSearchResult found = ops::clip_search(w, grid);
      const auto zero = found.zero_point.defined() ? std::optional(found.zero_point) : std::nullopt;
      const double per_unit = kind == Grid::kSeq ? 4 : kind == Grid::kTernary ? 1.5 : 1;
      EXPECT_TRUE(at::equal(ops::fake_quant_codes(w, found.scale, zero, grid).scale * per_unit, found.scale));
    }
}

TEST(ClipSearch, NaNGivesNaNScales) {
  at::Tensor w = at::randn({3, 64});
  w[1][5] = std::nan("");
  w[2][6] = -std::numeric_limits<float>::infinity();
  at::Tensor importance = at::ones({64});
  importance.narrow(0, 5, 2).zero_();
  for (const Case& c : kCases)
    for (const auto& weighting : {std::optional<at::Tensor>(), std::optional(importance)}) {
      const at::Tensor scale = ops::clip_search(w, {c.kind, c.bits, 64}, weighting).scale;
      EXPECT_TRUE(at::equal(scale.isnan().squeeze(1).to(at::kInt), at::tensor({0, 1, 1})));
    }
}

}  // namespace
}  // namespace satin::test
