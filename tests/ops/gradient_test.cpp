// Gradients against central differences, in fp64, of the surrogate whose rounding residuals are frozen:
//   x -> x + (round(x0) - x0), and which side of a clip a weight is on does not change. Finite differences of the step
// function itself say nothing.
#include <gtest/gtest.h>

#include <functional>

#include "ops/fake_quant_cases.h"

namespace satin::test {
namespace {
using ops::Grid;

/// The surrogate around a base point: a weight's level stays at (u + residual) inside and at the end level outside.
struct Surrogate {
  ops::FakeQuantGrid grid;
  at::Tensor inside, residual, end, zero_residual;

  static at::Tensor by_group(const at::Tensor& w, const ops::FakeQuantGrid& grid) {
    return w.view({w.size(0), -1, grid.group_size});
  }
  static at::Tensor column(const at::Tensor& state) { return state.unsqueeze(-1); }

  Surrogate(const ops::FakeQuantGrid& grid, const at::Tensor& w, const at::Tensor& s, const at::Tensor& z)
      : grid(grid) {
    const double top = (1 << grid.bits) - 1, half = 1 << (grid.bits - 1);
    const at::Tensor u = by_group(w, grid) / column(s);
    if (grid.kind == Grid::kAsymmetric) {
      const at::Tensor zero = at::clamp(at::round(column(z)), 0, top);
      zero_residual = zero - column(z);
      inside = (at::round(u) + zero >= 0) & (at::round(u) + zero <= top);
      end = at::where(at::round(u) + zero < 0, 0.0, top);  // a code: the zero point is subtracted in value()
      residual = at::round(u) - u;
      return;
    }
    at::Tensor q;
    if (grid.kind == Grid::kBinary) {  // no residual: the level is its sign, which the scale multiplies
      inside = u.abs() <= 1;
      end = at::where(u < 0, -1.0, 1.0);
      return;
    }
    if (grid.kind == Grid::kBitNet) {
      inside = at::ones_like(u, at::kBool);
      q = end = at::round(at::clamp(u, -1, 1));
    } else if (grid.kind == Grid::kSymmetric) {
      inside = (u >= -half) & (u <= half - 1);
      q = at::clamp(at::round(u), -half, half - 1);
      end = at::where(u < 0, -half, half - 1);
    } else {
      const bool seq = grid.kind == Grid::kSeq;
      const at::Tensor clipped = at::clamp(u, -0.99, 0.99);
      inside = u.abs() < 0.99;
      q = seq ? (at::round(2 * clipped - 0.5) + 0.5) / 2 : at::round(1.5 * clipped) / 1.5;
      end = at::sign(u) * (seq ? 0.75 : 2.0 / 3);
    }
    residual = q - u;
  }

  double value(const at::Tensor& w, const at::Tensor& s, const at::Tensor& z, const at::Tensor& grad) const {
    const at::Tensor u = by_group(w, grid) / column(s);
    at::Tensor q;
    if (grid.kind == Grid::kAsymmetric) {
      const at::Tensor zero = column(z) + zero_residual;
      q = at::where(inside, u + residual + zero, end) - zero;
    } else {
      q = at::where(inside, u + residual, end);
    }
    return (by_group(grad, grid) * q * column(s)).sum().item<double>();
  }
};

TEST(FakeQuantGradient, EqualsDifferencesOfTheFrozenSurrogate) {
  at::manual_seed(21);
  for (const auto& [kind, bits] : std::vector<std::pair<Grid, int>>{{Grid::kSymmetric, 2},
                                                                    {Grid::kSymmetric, 3},
                                                                    {Grid::kSymmetric, 8},
                                                                    {Grid::kAsymmetric, 2},
                                                                    {Grid::kAsymmetric, 4},
                                                                    {Grid::kSeq, 2},
                                                                    {Grid::kTernary, 2},
                                                                    {Grid::kBitNet, 2}}) {
    SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(kind) << ", " << bits << " bits");
    const ops::FakeQuantGrid grid{kind, bits, 16, ops::Rounding::kNone, ops::Rounding::kNone};
    at::Tensor w = at::randn({2, 32}, at::kDouble), grad = at::randn({2, 32}, at::kDouble);
    const bool integer = kind == Grid::kSymmetric || kind == Grid::kAsymmetric;
    at::Tensor s = (at::rand({2, 2}, at::kDouble) + 0.5) * (integer ? 2.0 / (1 << bits) : 1.0), z;
    if (kind == Grid::kAsymmetric) z = at::rand({2, 2}, at::kDouble) * ((1 << bits) - 1);
    const Surrogate surrogate(grid, w, s, z);
    ASSERT_NEAR(surrogate.value(w, s, z, grad),
                (grad * ops::fake_quant(w, s, z.defined() ? std::optional(z) : std::nullopt, grid, at::kDouble))
                    .sum()
                    .item<double>(),
                1e-12);
    const ops::FakeQuantGradients found =
        ops::fake_quant_backward(grad, w, s, z.defined() ? std::optional(z) : std::nullopt, grid);

    const auto check = [&](at::Tensor& x, const at::Tensor& gradient, double multiplier, const char* name) {
      const at::Tensor flat = x.view(-1), expected = gradient.view(-1);
      for (int64_t i = 0; i < flat.numel(); ++i) {
        constexpr double kStep = 1e-6;
        const double at_point = flat[i].item<double>();
        flat[i] = at_point + kStep;
        const double above = surrogate.value(w, s, z, grad);
        flat[i] = at_point - kStep;
        const double below = surrogate.value(w, s, z, grad);
        flat[i] = at_point;
        EXPECT_NEAR(expected[i].item<double>(), multiplier * (above - below) / (2 * kStep), 1e-7) << name << " " << i;
      }
    };
    const double qp = integer && bits > 2 ? (1 << (bits - 1)) - 1 : 1, multiplier = 1 / std::sqrt(16 * qp);
    check(w, found.weight, 1, "weight");
    check(s, found.scale, multiplier, "scale");
    if (z.defined()) check(z, found.zero_point, multiplier, "zero point");
  }
}

// Elastic binarisation is a sum of two surrogates: the weight's is u clipped to [-1, 1] (times the scale), the scale's
// is scale * sign.
TEST(FakeQuantGradient, BinaryFollowsItsTwoSurrogates) {
  at::manual_seed(22);
  const ops::FakeQuantGrid grid{Grid::kBinary, 1, 16, ops::Rounding::kNone, ops::Rounding::kNone};
  const at::Tensor w = at::randn({2, 32}, at::kDouble), grad = at::randn({2, 32}, at::kDouble);
  const at::Tensor s = at::rand({2, 2}, at::kDouble) + 0.5;
  const auto loss = [&](const at::Tensor& q) { return (grad.view({2, 2, 16}) * q).sum(); };
  const auto differences = [&](const at::Tensor& at_point, const std::function<at::Tensor(const at::Tensor&)>& f) {
    at::Tensor out = at::empty_like(at_point);
    for (int64_t i = 0; i < at_point.numel(); ++i) {
      at::Tensor step = at::zeros_like(at_point);
      step.view(-1)[i] = 1e-6;
      out.view(-1)[i] = (f(at_point + step) - f(at_point - step)) / 2e-6;
    }
    return out;
  };
  const at::Tensor by_weight = differences(w, [&](const at::Tensor& x) {
    return loss(s.unsqueeze(-1) * at::clamp(x.view({2, 2, 16}) / s.unsqueeze(-1), -1, 1));
  });
  const at::Tensor by_scale = differences(s, [&](const at::Tensor& x) {
    return loss(x.unsqueeze(-1) * at::where(w.view({2, 2, 16}) < 0, -1.0, 1.0));
  });
  const ops::FakeQuantGradients found = ops::fake_quant_backward(grad, w, s, {}, grid);
  EXPECT_LT((found.weight - by_weight).abs().max().item<double>(), 1e-7);
  EXPECT_LT((found.scale - by_scale / 4).abs().max().item<double>(), 1e-7);  // 1 / sqrt(16)
}

}  // namespace
}  // namespace satin::test
