// The torch-free CPU kernels: roundings against the compiler's own types, ties, row ranges, NaN and infinity.
// The formulas as a whole are checked in tests/ops, from one case table.
#include "kernels/fake_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/fake_quant_math.h"

namespace satin::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

uint32_t bits(float x) {
  uint32_t result;
  std::memcpy(&result, &x, 4);
  return result;
}

#if defined(__FLT16_MANT_DIG__)
TEST(Rounding, Float16EqualsTheCompilersType) {
  std::mt19937 random(1);
  for (int i = 0; i < 4'000'000; ++i) {
    const uint32_t pattern = random();
    float x;
    std::memcpy(&x, &pattern, 4);
    const float expected = static_cast<float>(static_cast<_Float16>(x));
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(round_float16(x)));
    } else {
      ASSERT_EQ(bits(round_float16(x)), bits(expected)) << x;
    }
  }
  // Where fp16 numbers live, with every tie between neighbours.
  for (uint32_t half = 0; half < 0x7c00; ++half) {
    const double low = std::ldexp((half & 0x3ff) + (half >> 10 ? 1024 : 0), std::max<int>(half >> 10, 1) - 25);
    const double high =
        std::ldexp(((half + 1) & 0x3ff) + ((half + 1) >> 10 ? 1024 : 0), std::max<int>((half + 1) >> 10, 1) - 25);
    for (double x : {low, (low + high) / 2, std::nextafter((low + high) / 2, high), -(low + high) / 2}) {
      const float value = static_cast<float>(x);
      ASSERT_EQ(bits(round_float16(value)), bits(static_cast<float>(static_cast<_Float16>(value)))) << value;
    }
  }
}
#endif

TEST(Rounding, BFloat16IsTheNearestEvenNeighbour) {
  std::mt19937 random(2);
  for (int i = 0; i < 1'000'000; ++i) {
    const uint32_t pattern = random() & 0x7fffffffu;
    if (pattern >= 0x7f000000u) continue;
    // Neighbours are the patterns with the low half cleared: distances are exact in fp64.
    float x, low, high;
    const uint32_t low_pattern = pattern & 0xffff0000u, high_pattern = low_pattern + 0x10000u;
    std::memcpy(&x, &pattern, 4);
    std::memcpy(&low, &low_pattern, 4);
    std::memcpy(&high, &high_pattern, 4);
    const double below = static_cast<double>(x) - low, above = static_cast<double>(high) - x;
    const bool up = above < below || (above == below && ((high_pattern >> 16) & 1) == 0);
    ASSERT_EQ(bits(round_bfloat16(x)), up ? high_pattern : low_pattern);
    ASSERT_EQ(bits(round_bfloat16(-x)), (up ? high_pattern : low_pattern) | 0x80000000u);
  }
  EXPECT_TRUE(std::isnan(round_bfloat16(kNaN)));
  EXPECT_EQ(round_bfloat16(kInfinity), kInfinity);
}

TEST(Rounding, HalfGoesToEven) {
  EXPECT_EQ(round_half_even(0.5f), 0);
  EXPECT_EQ(round_half_even(1.5f), 2);
  EXPECT_EQ(round_half_even(2.5f), 2);
  EXPECT_EQ(round_half_even(-2.5f), -2);
  EXPECT_EQ(round_half_even(std::nextafter(0.5f, 1.0f)), 1);
  EXPECT_FALSE(std::signbit(round_half_even(-0.25f))) << "zero weights are +0";
  EXPECT_EQ(round_half_even(0.5), 0);
  EXPECT_EQ(round_half_even(3.5), 4);
}

std::vector<float> forward(FakeQuantGrid grid, const std::vector<float>& w, float scale, float zero_point = 0) {
  grid.group_size = static_cast<int64_t>(w.size());
  std::vector<float> out(w.size());
  fake_quant_cpu<float>(grid, {1, grid.group_size}, 0, 1, w.data(), &scale, &zero_point, out.data());
  return out;
}

// Worked by hand from the formulas, scale 1 (or 4) and 2 bits; ties go to even.
TEST(FakeQuant, TwoBitGridsByHand) {
  using V = std::vector<float>;
  const V w = {-9, -2.5, -1.5, -0.5, 0, 0.5, 1.5, 9};
  EXPECT_EQ(forward({Grid::kSymmetric, 2}, w, 1), (V{-2, -2, -2, 0, 0, 0, 1, 1}));
  // zero point 1: codes 0..3 are -1..2
  EXPECT_EQ(forward({Grid::kAsymmetric, 2}, w, 1, 1), (V{-1, -1, -1, 0, 0, 0, 2, 2}));
  // a zero point beyond the codes is clamped, and rounded half to even
  EXPECT_EQ(forward({Grid::kAsymmetric, 2}, w, 1, 7), (V{-3, -2, -2, 0, 0, 0, 0, 0}));
  EXPECT_EQ(forward({Grid::kAsymmetric, 2}, w, 1, 0.5), (V{0, 0, 0, 0, 0, 0, 2, 3}));
  // SEQ with a = 4: levels -3, -1, 1, 3; thresholds -2, 0, 2 (2u - .5 = -1.5, -.5, .5 round to -2, 0, 0)
  EXPECT_EQ(forward({Grid::kSeq, 2}, {-9, -2.01, -2, -1, -0.01, 0, 1, 2, 2.01, 9}, 4),
            (V{-3, -3, -3, -1, -1, 1, 1, 1, 3, 3}));
  // ternary with a = 1.5: levels -1, 0, 1; thresholds +-.5 (1.5 * fl(1/3) = .5 goes to 0)
  EXPECT_EQ(forward({Grid::kTernary, 2}, {-9, -0.51, -0.4, 0, 0.4, 0.51, 9}, 1.5), (V{-1, -1, 0, 0, 0, 1, 1}));
  // binary with a = 2: the sign, +1 at zero
  EXPECT_EQ(forward({Grid::kBinary, 1}, {-9, -0.1, -0.0f, 0, 0.1, 9}, 2), (V{-2, -2, 2, 2, 2, 2}));
  // BitNet with a = 2: thresholds +-1, the tie goes to 0
  EXPECT_EQ(forward({Grid::kBitNet, 2}, {-9, -1.1, -1, 0, 1, 1.1, 9}, 2), (V{-2, -2, 0, 0, 0, 2, 2}));
}

TEST(FakeQuant, ScaleFloorAndSaturation) {
  EXPECT_EQ(stored_scale<Grid::kSymmetric>(Rounding::kNone, 0.0f), 1e-5f);
  EXPECT_EQ(stored_scale<Grid::kSymmetric>(Rounding::kBFloat16, -3.0f), round_bfloat16(1e-5f));
  EXPECT_EQ(stored_scale<Grid::kSymmetric>(Rounding::kFloat16, 1e-6f), std::ldexp(1.0f, -14));
  EXPECT_EQ(stored_scale<Grid::kSeq>(Rounding::kFloat16, 1e-6f), std::ldexp(1.0f, -16));
  EXPECT_EQ(stored_scale<Grid::kSymmetric>(Rounding::kFloat16, 1e9f), 65504.0f);
  EXPECT_TRUE(std::isfinite(stored_scale<Grid::kSymmetric>(Rounding::kBFloat16, 3.4e38f)));
  EXPECT_TRUE(std::isnan(stored_scale<Grid::kSymmetric>(Rounding::kBFloat16, kNaN)));
  EXPECT_EQ(stored_scale<Grid::kTernary>(Rounding::kNone, 3.0), 2.0);
}

TEST(FakeQuant, NaNPropagatesAndNothingCrashes) {
  for (Grid kind : {Grid::kSymmetric, Grid::kAsymmetric, Grid::kSeq, Grid::kTernary, Grid::kBitNet}) {
    const FakeQuantGrid grid{kind, 2};
    const auto weights = forward(grid, {kNaN, kInfinity, -kInfinity, 1}, 1);
    EXPECT_TRUE(std::isnan(weights[0]));
    EXPECT_TRUE(std::isfinite(weights[1]) && std::isfinite(weights[2]) && std::isfinite(weights[3]));
    for (float x : forward(grid, {0, 1, 2}, kNaN)) EXPECT_TRUE(std::isnan(x));
    if (kind == Grid::kAsymmetric) {
      for (float x : forward(grid, {0, 1, 2}, 1, kNaN)) EXPECT_TRUE(std::isnan(x));
    }

    FakeQuantGrid three = grid;
    three.group_size = 3;
    const std::vector<float> w = {kNaN, 1, kInfinity}, grad = {1, 1, 1};
    const float scale = 1, zero_point = kNaN;
    std::vector<uint8_t> codes(3, 99);
    float stored, grad_scale, grad_zero;
    int32_t zero;
    std::vector<float> grad_w(3);
    fake_quant_codes_cpu<float>(three, {1, 3}, 0, 1, w.data(), &scale, &zero_point, codes.data(), &stored, &zero);
    for (uint8_t code : codes) EXPECT_LT(code, 4);
    fake_quant_backward_cpu<float>(three, {1, 3}, 0, 1, grad.data(), w.data(), &scale, &zero_point, grad_w.data(),
                                   &grad_scale, &grad_zero);
    EXPECT_TRUE(std::isnan(grad_scale));
  }
}

TEST(FakeQuant, RowRangesMakeTheWhole) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const Extent extent{7, 96};
  const FakeQuantGrid grid{Grid::kAsymmetric, 3, 48};
  std::vector<float> w(7 * 96), grad(w.size()), scale(14), zero(14);
  for (float& x : w) x = normal(random);
  for (float& x : grad) x = normal(random);
  for (float& x : scale) x = 0.1f + std::abs(normal(random)) / 4;
  for (float& x : zero) x = 3 + normal(random);
  const auto all = [&](std::vector<int64_t> cuts) {
    std::vector<float> out(w.size(), kNaN), grad_w(w.size(), kNaN), grad_scale(14, kNaN), grad_zero(14, kNaN);
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      fake_quant_cpu<float>(grid, extent, cuts[i], cuts[i + 1], w.data(), scale.data(), zero.data(), out.data());
      fake_quant_backward_cpu<float>(grid, extent, cuts[i], cuts[i + 1], grad.data(), w.data(), scale.data(),
                                     zero.data(), grad_w.data(), grad_scale.data(), grad_zero.data());
    }
    for (const auto* more : {&grad_w, &grad_scale, &grad_zero}) out.insert(out.end(), more->begin(), more->end());
    return out;
  };
  EXPECT_EQ(all({0, 7}), all({0, 1, 1, 4, 7}));
}

TEST(FakeQuant, RefusesGridsThatDoNotExist) {
  EXPECT_THROW(check({Grid::kSymmetric, 1}, {1, 64}), std::invalid_argument);
  EXPECT_THROW(check({Grid::kSymmetric, 9}, {1, 64}), std::invalid_argument);
  EXPECT_THROW(check({Grid::kSeq, 3}, {1, 64}), std::invalid_argument);
  EXPECT_THROW(check({Grid::kSymmetric, 2, 48}, {1, 64}), std::invalid_argument);
  EXPECT_THROW(check({Grid::kSymmetric, 2, 0}, {1, 64}), std::invalid_argument);
  EXPECT_NO_THROW(check({Grid::kTernary, 2, 64}, {0, 64}));
}

TEST(FakeQuant, GradientMultiplier) {
  EXPECT_DOUBLE_EQ(gradient_multiplier({Grid::kAsymmetric, 2, 64}), 1.0 / 8);
  EXPECT_DOUBLE_EQ(gradient_multiplier({Grid::kSymmetric, 3, 48}), 1.0 / 12);
  EXPECT_DOUBLE_EQ(gradient_multiplier({Grid::kTernary, 2, 16}), 1.0 / 4);
}

}  // namespace
}  // namespace satin::kernels
