// act_quant.h on the CPU by hand: rounding to e4m3 by its definition, rows, ranges of rows, damaged rows.
// The formulas as a whole are checked in tests/ops, from one case table.
#include "kernels/act_quant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/act_quant_math.h"

namespace satin::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// By definition: multiples of 2^(exponent - 3), of at least 2^-9.
double float8_by_definition(double x) {
  const double step = std::ldexp(1.0, std::max(x == 0 ? -100 : std::ilogb(x), -6) - 3);
  return std::nearbyint(x / step) * step;
}

TEST(ActQuantRounding, Float8IsTheDefinition) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> exponent(-14, 8.8);
  for (int i = 0; i < 1'000'000; ++i) {
    const double x = std::min(std::exp2(exponent(random)), 448.0) * (random() % 2 ? 1 : -1);
    ASSERT_EQ(round_float8(x), float8_by_definition(x)) << x;
    const float narrow = static_cast<float>(x);
    ASSERT_EQ(round_float8(narrow), static_cast<float>(float8_by_definition(narrow))) << x;
  }
  EXPECT_FALSE(std::signbit(round_float8(-1e-5f)));
  for (const uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu, 0xffc00000u}) {
    EXPECT_TRUE(std::isnan(round_float8(float_of(bits))));
  }
  EXPECT_TRUE(std::isnan(round_float8(std::numeric_limits<double>::quiet_NaN())));
}

TEST(ActQuantRows, Int4ByHand) {
  // max 14, so scale 2: halves of 2 tie to even.
  const std::vector<float> x = {14, 1, 3, -5, 2.9f, -14, 0, -0.0f};
  std::vector<float> out(8), expected = {14, 0, 4, -4, 2, -14, 0, 0};
  act_quant_cpu<float>(ActivationFormat::kInt4, {1, 8}, 0, 1, x.data(), out.data());
  EXPECT_EQ(out, expected);
  std::vector<uint8_t> codes(8), expected_codes = {7, 0, 2, 254, 1, 249, 0, 0};
  float scale;
  act_quant_codes_cpu<float>(ActivationFormat::kInt4, {1, 8}, 0, 1, x.data(), codes.data(), &scale);
  EXPECT_EQ(codes, expected_codes);
  EXPECT_EQ(scale, 2);
}

TEST(ActQuantRows, StaticGradientByHand) {
  // scale 2, so u = {.5, -1.25, 9, -8}: inside, inside, above, below.
  const std::vector<double> x = {1, -2.5, 18, -16}, grad = {1, 2, 3, 4};
  std::vector<double> grad_x(4), row_sums(1), expected = {1, 2, 0, 0};
  const double scale = 2;
  act_quant_static_backward_cpu<double>(ActivationFormat::kInt4, {1, 4}, 0, 1, grad.data(), x.data(), &scale,
                                        grad_x.data(), row_sums.data());
  EXPECT_EQ(grad_x, expected);
  EXPECT_DOUBLE_EQ(row_sums[0], 1 * (0 - 0.5) + 2 * (-1 + 1.25) + 3 * 7 + 4 * -7);
  EXPECT_DOUBLE_EQ(act_quant_scale_gradient(ActivationFormat::kInt4, {1, 4}, row_sums.data()),
                   row_sums[0] / std::sqrt(4.0 * 7));
}

TEST(ActQuantRows, DamagedRowsAreNaNAndOthersAreNot) {
  for (const float bad : {kNaN, kInfinity, -kInfinity}) {
    std::vector<float> x(3 * 33, 1.5f), out(x), scale(3);
    std::vector<uint8_t> codes(x.size(), 9);
    x[33 + 32] = bad;
    for (const ActivationFormat format :
         {ActivationFormat::kInt8, ActivationFormat::kInt4, ActivationFormat::kFloat8}) {
      act_quant_cpu<float>(format, {3, 33}, 0, 3, x.data(), out.data());
      act_quant_codes_cpu<float>(format, {3, 33}, 0, 3, x.data(), codes.data(), scale.data());
      for (size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(std::isnan(out[i]), i / 33 == 1);
        EXPECT_EQ(codes[i] == 0, i / 33 == 1);
      }
      EXPECT_EQ(std::isnan(scale[0]) || std::isnan(scale[2]), false);
      EXPECT_TRUE(std::isnan(scale[1]));
    }
  }
}

TEST(ActQuantRows, ARangeOfRowsIsAllThatIsWritten) {
  const std::vector<float> x(4 * 5, 3);
  std::vector<float> out(x.size(), 8);
  act_quant_cpu<float>(ActivationFormat::kInt8, {4, 5}, 1, 3, x.data(), out.data());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(out[i] == 8, i < 5 || i >= 15);
}

TEST(ActQuantRows, BadArguments) {
  EXPECT_THROW(check(static_cast<ActivationFormat>(3), {1, 1}), std::invalid_argument);
  EXPECT_THROW(check(ActivationFormat::kInt8, {-1, 1}), std::invalid_argument);
  EXPECT_THROW(check(ActivationFormat::kInt8, {1, -1}), std::invalid_argument);
}

}  // namespace
}  // namespace satin::kernels
