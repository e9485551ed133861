// packed_matmul.h on the CPU: products from the codes in fp64, every instruction set, tails, ranges of rows; the
// weights that it dequantizes, bit for bit.
#include "kernels/packed_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace satin::kernels {
namespace {

/// A matrix as codes, scales and zeros, in rows, and packed.
struct Matrix {
  PackedShape shape;
  Half scale_dtype;
  int step, zero;
  std::vector<uint8_t> codes;
  std::vector<double> scales;  ///< [N][G]
  std::vector<int> zeros;      ///< [N][G]; empty: `zero` everywhere
  std::vector<uint32_t> words;
  std::vector<uint16_t> packed_scales;
  std::vector<uint8_t> packed_zeros;

  double level(int64_t row, int64_t column) const {
    const auto at = static_cast<size_t>(row * shape.num_groups() + column / shape.group_size);
    return step * codes[static_cast<size_t>(row * shape.num_columns + column)] - (zeros.empty() ? zero : zeros[at]);
  }
  double weight(int64_t row, int64_t column) const {
    return level(row, column) * scales[static_cast<size_t>(row * shape.num_groups() + column / shape.group_size)];
  }
  PackedMatrix packed() const {
    return {shape, words.data(), packed_scales.data(), zeros.empty() ? nullptr : packed_zeros.data(), scale_dtype,
            step,  zero};
  }
};

/// A scale with few digits in the middle of either format's range, and its 16 bits.
std::pair<double, uint16_t> random_scale(Half dtype, std::mt19937& random) {
  const int fraction = static_cast<int>(random() % 128), exponent = static_cast<int>(random() % 6) - 8;
  const double value = std::ldexp(1 + fraction / 128., exponent);
  const int bits =
      dtype == Half::kBFloat16 ? ((exponent + 127) << 7) + fraction : ((exponent + 15) << 10) + 8 * fraction;
  return {value, static_cast<uint16_t>(bits)};
}

Matrix random_matrix(int64_t rows, int64_t columns, int bits, int64_t group_size, bool with_zeros, int step = 1,
                     Half dtype = Half::kBFloat16) {
  std::mt19937 random(static_cast<unsigned>(rows * 31 + columns + bits));
  Matrix m{{rows, columns, bits, group_size},
           dtype,
           step,
           with_zeros  ? 99
           : step == 2 ? (1 << bits) - 1
                       : 1 << (bits - 1),
           {},
           {},
           {},
           {},
           {},
           {}};
  for (int64_t i = 0; i < rows * columns; ++i) m.codes.push_back(static_cast<uint8_t>(random() % (1u << bits)));
  m.words.resize(static_cast<size_t>(m.shape.num_words()));
  pack_codes(m.shape, 0, m.shape.row_bricks(), m.codes.data(), m.words.data());
  m.packed_scales.assign(static_cast<size_t>(2 * m.shape.num_pairs()), 0);
  m.packed_zeros.assign(m.packed_scales.size(), 0);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t group = 0; group < m.shape.num_groups(); ++group) {
      const auto [value, packed] = random_scale(dtype, random);
      const auto at = static_cast<size_t>(scale_index(m.shape, row, group));
      m.scales.push_back(value);
      m.packed_scales[at] = packed;
      if (!with_zeros) continue;
      m.zeros.push_back(static_cast<int>(random() % (1u << bits)));
      m.packed_zeros[at] = static_cast<uint8_t>(m.zeros.back());
    }
  return m;
}

struct Case {
  int bits;
  int64_t group_size;
  bool with_zeros;
  int step = 1;
  Half dtype = Half::kBFloat16;
};
const std::vector<Case> kCases = {
    {1, 32, false, 2}, {1, 64, true},      {1, 512, false, 2}, {2, 32, true},
    {2, 64, false},    {2, 128, false, 2}, {2, 96, true},      {2, 512, false, 1, Half::kFloat16},
    {3, 32, false},    {3, 128, true},     {4, 32, true},      {4, 64, false, 1, Half::kFloat16},
    {4, 128, true},    {8, 32, true},      {8, 64, false},     {8, 512, false}};

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(normal(random));
  return values;
}

/// |y - expected| over |expected|, norms; the expected from codes and scales in fp64.
double relative_error(const Matrix& m, int64_t num_rows, const std::vector<float>& x, const std::vector<float>& bias,
                      const std::vector<float>& residual, const auto& y) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < num_rows; ++i)
    for (int64_t n = 0; n < m.shape.num_rows; ++n) {
      const auto at = static_cast<size_t>(i * m.shape.num_rows + n);
      double sum = (bias.empty() ? 0 : bias[static_cast<size_t>(n)]) + (residual.empty() ? 0 : residual[at]);
      for (int64_t k = 0; k < m.shape.num_columns; ++k)
        sum += m.weight(n, k) * x[static_cast<size_t>(i * m.shape.num_columns + k)];
      error += (y[at] - sum) * (y[at] - sum);
      norm += sum * sum;
    }
  return std::sqrt(error / norm);
}

TEST(PackedMatmul, EqualsTheFormulaInDouble) {
  for (const Case& c : kCases)
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{48, 512}, {37, 333}, {1, 64}}) {
      SCOPED_TRACE(testing::Message() << c.bits << " bits, group " << c.group_size << ", " << rows << " x " << columns);
      const Matrix m = random_matrix(rows, columns, c.bits, c.group_size, c.with_zeros, c.step, c.dtype);
      for (const int64_t num_rows : {1, 2, 7}) {
        const auto x = random_floats(num_rows * columns, 1), bias = random_floats(rows, 2);
        const auto residual = random_floats(num_rows * rows, 3);
        std::vector<std::vector<float>> by_width;
        for (const int most_floats : {16, 8, 4}) {
          std::vector<float> y(static_cast<size_t>(num_rows * rows), std::numeric_limits<float>::quiet_NaN());
          packed_matmul_cpu({m.packed(), num_rows, x.data(), y.data(), bias.data(), residual.data()}, 0,
                            m.shape.row_bricks(), most_floats);
          EXPECT_LT(relative_error(m, num_rows, x, bias, residual, y), 2e-6) << most_floats;
          by_width.push_back(y);
          EXPECT_EQ(y, by_width.front()) << most_floats;
        }
      }
      const auto x = random_floats(columns, 4);
      const std::vector<double> wide(x.begin(), x.end());
      std::vector<double> y(static_cast<size_t>(rows));
      packed_matmul_reference<double>({m.packed(), 1, wide.data(), y.data(), nullptr, nullptr}, 0,
                                      m.shape.row_bricks());
      EXPECT_LT(relative_error(m, 1, x, {}, {}, y), 1e-14);
      std::vector<float> narrow(y.size());
      packed_matmul_reference<float>({m.packed(), 1, x.data(), narrow.data(), nullptr, nullptr}, 0,
                                     m.shape.row_bricks());
      EXPECT_LT(relative_error(m, 1, x, {}, {}, narrow), 5e-6);
    }
}

TEST(PackedMatmul, ARowHasTheSameBitsInEveryBatchAndRange) {
  for (const int bits : {1, 2, 3, 4, 8}) {
    const Matrix m = random_matrix(80, 300, bits, 32, bits != 1);
    const int64_t num_rows = 11;
    const auto x = random_floats(num_rows * 300, 1);
    const size_t size = static_cast<size_t>(num_rows * 80);
    std::vector<float> together(size), alone(size), by_ranges(size);
    packed_matmul_cpu({m.packed(), num_rows, x.data(), together.data(), nullptr, nullptr}, 0, 5);
    for (const auto& [begin, end] : {std::pair{3, 5}, {0, 1}, {1, 3}})
      packed_matmul_cpu({m.packed(), num_rows, x.data(), by_ranges.data(), nullptr, nullptr}, begin, end);
    for (int64_t i = 0; i < num_rows; ++i)
      packed_matmul_cpu({m.packed(), 1, x.data() + i * 300, alone.data() + i * 80, nullptr, nullptr}, 0, 5);
    EXPECT_EQ(alone, together) << bits;
    EXPECT_EQ(by_ranges, together) << bits;
  }
}

TEST(PackedMatmul, WhatFillsUpIsNoPartOfIt) {
  Matrix m = random_matrix(17, 129, 2, 64, true);
  const auto x = random_floats(129, 1);
  std::vector<float> before(17), after(17);
  packed_matmul_cpu({m.packed(), 1, x.data(), before.data(), nullptr, nullptr}, 0, 2);
  std::vector<uint8_t> ones(2 * 16 * 256, 3);
  const std::vector<uint32_t> words = m.words;
  const PackedShape whole{32, 256, 2, 64};
  pack_codes(whole, 0, 2, ones.data(), m.words.data());
  for (int64_t row = 0; row < 17; ++row)
    for (int64_t column = 0; column < 129; ++column) {
      const CodePlace place = place_of(m.shape, row, column);
      const uint32_t mask = 3u << place.bit;
      uint32_t& word = m.words[static_cast<size_t>(place.word)];
      word = (word & ~mask) | (words[static_cast<size_t>(place.word)] & mask);
    }
  packed_matmul_cpu({m.packed(), 1, x.data(), after.data(), nullptr, nullptr}, 0, 2);
  EXPECT_EQ(after, before);
}

TEST(PackedMatmul, DequantizesBitForBit) {
  for (const Case& c : kCases) {
    const Matrix m = random_matrix(37, 333, c.bits, c.group_size, c.with_zeros, c.step, c.dtype);
    for (const Rounding rounding : {Rounding::kNone, Rounding::kBFloat16, Rounding::kFloat16}) {
      std::vector<float> rows(static_cast<size_t>(21 * 333));  // the bricks of rows 16 to 36
      packed_dequantize_cpu(m.packed(), rounding, 1, 3, rows.data());
      for (int64_t row = 16; row < 37; ++row)
        for (int64_t column = 0; column < 333; ++column) {
          const double exact = m.weight(row, column);  // of at most 16 digits
          double expected = exact;
          if (rounding != Rounding::kNone && exact != 0) {
            const double spacing = std::ldexp(1, std::ilogb(exact) - (rounding == Rounding::kBFloat16 ? 7 : 10));
            expected = std::nearbyint(exact / spacing) * spacing;
          }
          ASSERT_EQ(rows[static_cast<size_t>((row - 16) * 333 + column)], expected) << row << " " << column;
        }
    }
  }
}

TEST(PackedMatmul, ReadsEveryScale) {
  for (const Half dtype : {Half::kBFloat16, Half::kFloat16})
    for (int bits = 0; bits < 0x8000; bits += 7) {
      const int digits = dtype == Half::kBFloat16 ? 7 : 10, bias = dtype == Half::kBFloat16 ? 127 : 15;
      const int exponent = bits >> digits, fraction = bits & ((1 << digits) - 1);
      const double expected = exponent == 2 * bias + 1 ? (fraction ? std::nan("") : INFINITY)
                              : exponent == 0          ? std::ldexp(fraction, 1 - bias - digits)
                                                       : std::ldexp(fraction + (1 << digits), exponent - bias - digits);
      const PackedShape shape{1, 1, 1, 32};
      const std::vector<uint32_t> words(static_cast<size_t>(shape.num_words()), ~0u);
      const std::vector<uint16_t> scales(16, static_cast<uint16_t>(bits));
      float value = 0;
      packed_dequantize_cpu({shape, words.data(), scales.data(), nullptr, dtype, 1, 0}, Rounding::kNone, 0, 1, &value);
      if (std::isnan(expected))
        ASSERT_TRUE(std::isnan(value)) << bits;
      else
        ASSERT_EQ(value, expected) << bits;
    }
}

}  // namespace
}  // namespace satin::kernels
