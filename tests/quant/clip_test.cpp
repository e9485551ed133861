// Learned weight clipping against its formula and, for gradients, central differences in fp64 of the surrogate whose
// rounding residuals are frozen.
#include "quant/clip.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

namespace satin::quant {
namespace {

constexpr int64_t kClipGroup = 16;

struct Clips {
  at::Tensor high, low;
};

/// OmniQuant's formula, group by group.
struct Range {
  at::Tensor scale, zero_point;
  Range(const at::Tensor& groups, const Clips& clips, int bits) {
    const at::Tensor high = at::sigmoid(clips.high) * groups.amax(-1).clamp_min(0);
    const at::Tensor low = at::sigmoid(clips.low) * groups.amin(-1).clamp_max(0);
    scale = (high - low) / ((1 << bits) - 1);
    zero_point = -low / scale;
  }
};

TEST(Clip, GradientsEqualDifferencesOfTheFrozenSurrogate) {
  at::manual_seed(31);
  for (int bits : {2, 3, 4}) {
    SCOPED_TRACE(bits);
    const ops::FakeQuantGrid grid{ops::Grid::kAsymmetric, bits, kClipGroup, ops::Rounding::kNone, ops::Rounding::kNone};
    const double top = (1 << bits) - 1;
    const at::Tensor w = at::randn({3, 2 * kClipGroup}, at::kDouble),
                     grad = at::randn({3, 2 * kClipGroup}, at::kDouble);
    Clips clips{at::randn({3, 2}, at::kDouble), at::randn({3, 2}, at::kDouble)};  // far from the ends of the range
    const at::Tensor groups = w.view({3, 2, kClipGroup}), d = grad.view(groups.sizes());

    const Range base(groups, clips, bits);
    const at::Tensor zero = at::round(base.zero_point), zero_residual = zero - base.zero_point;
    const at::Tensor u = groups / base.scale.unsqueeze(-1), code = at::round(u) + zero.unsqueeze(-1);
    const at::Tensor inside = (code >= 0) & (code <= top), residual = at::round(u) - u;
    const auto loss = [&](const Clips& at_point) {
      const Range range(groups, at_point, bits);
      const at::Tensor s = range.scale.unsqueeze(-1), z = (range.zero_point + zero_residual).unsqueeze(-1);
      const at::Tensor level = at::where(inside, groups / s + residual, at::where(code < 0, 0.0, top) - z);
      return (d * level * s).sum().item<double>();
    };

    for (at::Tensor* clip : {&clips.high, &clips.low}) clip->requires_grad_(true);
    const QuantizerState state = clipped_state(w, clips.high, clips.low, grid);
    EXPECT_TRUE(at::allclose(state.scale, base.scale, 1e-12, 0));
    EXPECT_TRUE(at::allclose(state.zero_point, base.zero_point, 1e-9, 1e-12));
    const at::Tensor out = ops::fake_quant(w, state.scale, state.zero_point, grid, at::kDouble);
    const at::NoGradGuard no_grad;
    EXPECT_NEAR((out * grad).sum().item<double>(), loss(clips), 1e-10);
    {
      const at::AutoGradMode grad_mode(true);
      (out * grad).sum().backward();
    }
    for (at::Tensor* clip : {&clips.high, &clips.low}) {
      const at::Tensor found = clip->grad().view(-1), values = clip->detach().view(-1);
      for (int64_t i = 0; i < values.numel(); ++i) {
        constexpr double kStep = 1e-6;
        const double at_point = values[i].item<double>();
        values[i] = at_point + kStep;
        const double above = loss(clips);
        values[i] = at_point - kStep;
        const double below = loss(clips);
        values[i] = at_point;
        EXPECT_NEAR(found[i].item<double>(), (above - below) / (2 * kStep), 1e-6) << i;
      }
    }
  }
}

TEST(Clip, TheWholeRangeIsMinMax) {
  at::manual_seed(32);
  const at::Tensor w = at::randn({4, 64}) * 0.05, open = at::full({4, 2}, 40.0f);
  const ops::FakeQuantGrid grid{ops::Grid::kAsymmetric, 4, 32};
  const QuantizerState found = clipped_state(w, open, open, grid);
  const QuantizerState data = state_from_data(w, {Method::kMinMaxAsymmetric, 4, 32});
  EXPECT_TRUE(at::equal(ops::fake_quant(w, found.scale, found.zero_point, grid, at::kFloat),
                        ops::fake_quant(w, data.scale, data.zero_point, grid, at::kFloat)));
}

}  // namespace
}  // namespace satin::quant
