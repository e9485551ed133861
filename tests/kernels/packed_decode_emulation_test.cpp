// The CUDA kernels for a few rows of x times packed weights on the CPU (kernels/cuda/emulation.h) against fp64: bits,
// groups, zero points, rows of x and tiles, whatever lies before and after them, and matrices that end within bricks.
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/packed_decode.cu"

namespace satin::kernels {
namespace {

struct Case {
  int64_t rows, columns;
  int bits;
  int64_t group_size;
  bool zeros;
  int step = 1;
  int num_x_rows = 1;
  Half dtype = Half::kBFloat16, scale_dtype = Half::kBFloat16;
  bool bias = false, residual = false, normed = false, gated = false, wide = false;
};

uint16_t narrow(float x, Half dtype) {
  return dtype == Half::kFloat16 ? __half_as_ushort(__float2half_rn(x)) : __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
double number(uint16_t bits, Half dtype) {
  return dtype == Half::kFloat16 ? emulation::float_of_half(bits) : __bfloat162float({bits});
}

/// A case's operands and its result in fp64.
struct Data {
  Case one;
  PackedShape shape;
  std::vector<uint32_t> words;
  std::vector<uint16_t> scales, x, bias, residual;
  std::vector<uint8_t> zeros;
  std::vector<float> wide_x, wide_residual, norm_weight;
  std::vector<double> expected;

  explicit Data(const Case& c) : one(c), shape{c.rows, c.columns, c.bits, c.group_size} {
    std::mt19937 random(static_cast<unsigned>(c.bits + c.num_x_rows));
    std::normal_distribution<float> normal;
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    const auto n = static_cast<size_t>(c.rows), k = static_cast<size_t>(c.columns),
               m = static_cast<size_t>(c.num_x_rows);

    std::vector<uint8_t> codes(n * k);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(below(1 << c.bits));
    words.resize(static_cast<size_t>(shape.num_words()));
    pack_codes(shape, 0, shape.row_bricks(), codes.data(), words.data());
    scales.resize(static_cast<size_t>(2 * shape.num_pairs()));
    zeros.resize(scales.size());
    std::vector<double> weight(n * k);
    for (int64_t row = 0; row < c.rows; ++row)
      for (int64_t group = 0; group < shape.num_groups(); ++group) {
        const auto at = static_cast<size_t>(scale_index(shape, row, group));
        scales[at] = narrow(.01f + .1f * static_cast<float>(below(1000)) / 1000, c.scale_dtype);
        zeros[at] = static_cast<uint8_t>(below(1 << c.bits));
        const int zero = c.zeros ? zeros[at] : constant_zero();
        for (int64_t i = group * c.group_size; i < std::min((group + 1) * c.group_size, c.columns); ++i) {
          const size_t of_weight = static_cast<size_t>(row * c.columns + i);
          weight[of_weight] = number(scales[at], c.scale_dtype) * (c.step * codes[of_weight] - zero);
        }
      }

    std::vector<double> wide(m * k);
    for (size_t i = 0; i < wide.size(); ++i) {
      // Bricks of very different sizes, and one of zeros.
      const size_t brick = i % k / 128;
      const float value = normal(random) * (brick == 1 && k > 256 ? 0 : std::ldexp(1.f, static_cast<int>(brick) - 1));
      wide_x.push_back(value);
      x.push_back(narrow(value, c.dtype));
      wide[i] = c.normed ? value : number(x[i], c.dtype);
    }
    for (size_t i = 0; i < k; ++i) norm_weight.push_back(1 + .2f * normal(random));
    if (c.normed)
      for (size_t row = 0; row < m; ++row) {
        double squares = 0;
        for (size_t i = 0; i < k; ++i) squares += wide[row * k + i] * wide[row * k + i];
        for (size_t i = 0; i < k; ++i)
          wide[row * k + i] *= norm_weight[i] / std::sqrt(squares / static_cast<double>(k) + kEps);
      }
    for (size_t i = 0; i < n; ++i) bias.push_back(narrow(normal(random), c.dtype));
    for (size_t i = 0; i < m * n; ++i) {
      wide_residual.push_back(normal(random));
      residual.push_back(narrow(wide_residual[i], c.dtype));
    }

    std::vector<double> y(m * n);
    for (size_t i = 0; i < y.size(); ++i) {
      for (size_t j = 0; j < k; ++j) y[i] += wide[i / n * k + j] * weight[i % n * k + j];
      if (c.bias) y[i] += number(bias[i % n], c.dtype);
      if (c.residual) y[i] += c.wide ? wide_residual[i] : number(residual[i], c.dtype);
    }
    if (!c.gated) {
      expected = y;
      return;
    }
    for (size_t i = 0; i < m * n / 2; ++i) {
      const double gate = y[i / (n / 2) * n + i % (n / 2)], up = y[i / (n / 2) * n + n / 2 + i % (n / 2)];
      expected.push_back(gate / (1 + std::exp(-gate)) * up);
    }
  }
  int constant_zero() const { return one.step == 2 ? (1 << one.bits) - 1 : 1 << (one.bits - 1); }

  std::vector<double> found(DecodeTile tile) const {
    std::vector<uint16_t> y(expected.size(), 0x7fff);
    std::vector<float> wide_y(expected.size(), NAN);
    DecodeArgs args{{shape, words.data(), scales.data(), one.zeros ? zeros.data() : nullptr, one.scale_dtype, one.step,
                     constant_zero()},
                    one.dtype,
                    one.num_x_rows,
                    one.normed ? static_cast<const void*>(wide_x.data()) : x.data(),
                    one.wide ? static_cast<void*>(wide_y.data()) : y.data(),
                    one.bias ? bias.data() : nullptr,
                    nullptr};
    if (one.residual) args.residual = one.wide ? static_cast<const void*>(wide_residual.data()) : residual.data();
    args.norm_weight = one.normed ? norm_weight.data() : nullptr;
    args.norm_eps = kEps;
    args.gated = one.gated;
    args.wide = one.wide;
    args.tile = tile;
    packed_decode_cuda(args, nullptr);
    std::vector<double> result;
    for (size_t i = 0; i < y.size(); ++i) result.push_back(one.wide ? wide_y[i] : number(y[i], one.dtype));
    return result;
  }
  static constexpr float kEps = 1e-5f;
};

void expect_near(const Case& one, const std::vector<DecodeTile>& tiles) {
  const Data data(one);
  for (const DecodeTile& tile : tiles) {
    SCOPED_TRACE(testing::Message() << one.rows << " x " << one.columns << ", " << one.bits << " bits, groups "
                                    << one.group_size << ", zeros " << one.zeros << ", step " << one.step << ", "
                                    << one.num_x_rows << " rows, dtype " << static_cast<int>(one.dtype)
                                    << static_cast<int>(one.scale_dtype) << ", tile " << tile.row_bricks << 'x'
                                    << tile.warps << (one.normed ? ", normed" : "") << (one.gated ? ", gated" : "")
                                    << (one.wide ? ", wide" : ""));
    const std::vector<double> found = data.found(tile);
    double error = 0, size = 0;
    for (size_t j = 0; j < found.size(); ++j) {
      error += (found[j] - data.expected[j]) * (found[j] - data.expected[j]);
      size += data.expected[j] * data.expected[j];
    }
    EXPECT_LT(std::sqrt(error / size), one.wide ? 1e-4 : 4e-3);
  }
}

/// With all tiles, or the i-th of those that the case has.
void expect_near(const Case& one, int only = -1) {
  std::vector<DecodeTile> tiles;
  for (const DecodeTile& tile : kDecodeTiles)
    if (has_decode_tile({one.rows, one.columns, one.bits, one.group_size}, one.num_x_rows, one.gated, tile))
      tiles.push_back(tile);
  expect_near(one, only < 0 ? tiles : std::vector{tiles[static_cast<size_t>(only) % tiles.size()]});
}

TEST(PackedDecodeEmulation, EveryTile) {
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int64_t group : {32, 64, 128, 352})
      for (const int rows : {1, 4, 9})
        expect_near({.rows = 40,
                     .columns = 328,
                     .bits = bits,
                     .group_size = group,
                     .zeros = bits > 1,
                     .num_x_rows = rows,
                     .wide = rows <= 4});
}

TEST(PackedDecodeEmulation, RowsZerosAndTypes) {
  int turn = 0;
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int rows : {1, 2, 3, 4, 5, 8, 9, 16})
      for (const bool zeros : {false, true})
        for (const bool halves : {false, true}) {
          Case one{.rows = 40, .columns = 200, .bits = bits, .group_size = 32 << turn % 3, .zeros = zeros};
          one.num_x_rows = rows;
          if (halves && rows <= 4) one.dtype = Half::kFloat16;
          if (halves) one.scale_dtype = Half::kFloat16;
          one.bias = turn % 2 == 0;
          one.residual = turn % 3 == 0;
          one.wide = rows <= 4 && halves == zeros;
          if (bits <= 2 && !zeros && halves) one.step = 2;
          expect_near(one, turn++);
        }
}

TEST(PackedDecodeEmulation, NormsGatesAndStreams) {
  int turn = 0;
  for (const int bits : {1, 2, 3, 4, 8})
    for (const int rows : {1, 2, 3, 4, 7, 16})
      for (const bool gated : {false, true}) {
        Case one{.rows = gated ? 96 : 56, .columns = 136, .bits = bits, .group_size = 64, .zeros = bits > 1};
        one.num_x_rows = rows;
        one.normed = turn % 3 != 1 && rows <= 4;
        one.gated = gated;
        one.wide = one.residual = !gated;
        one.bias = turn % 2 == 0;
        if (turn % 4 == 3 && rows <= 4) one.dtype = Half::kFloat16;
        expect_near(one, turn++);
      }
}

TEST(PackedDecodeEmulation, NumbersOfAllSizes) {
  for (const auto& [rows, tile] : {std::pair{1, DecodeTile{1, 16}}, {1, {4, 16}}, {2, {1, 16}}}) {
    Case one{.rows = 32, .columns = 384, .bits = 2, .group_size = 128, .zeros = false, .num_x_rows = rows};
    one.wide = true;
    for (const float size : {1e-36f, 1e-30f, 1e30f}) {
      Data data(one);
      double largest_x = 0;
      for (size_t i = 0; i < data.x.size(); ++i) {
        data.x[i] = narrow(static_cast<float>(number(data.x[i], one.dtype)) * size, one.dtype);
        largest_x = std::max(largest_x, std::fabs(number(data.x[i], one.dtype)));
      }
      const std::vector<double> found = data.found(tile);
      double error = 0, largest = 0;
      for (size_t i = 0; i < found.size(); ++i) {
        error = std::max(error, std::fabs(found[i] / double{size} - data.expected[i]));
        largest = std::max(largest, std::fabs(data.expected[i]));
      }
      EXPECT_GT(largest_x, 0) << size;
      EXPECT_LT(error, 2e-2 * largest) << size;  // x is rounded again, which is of bfloat16
    }
    Data data(one);
    data.x[5] = narrow(NAN, one.dtype);
    const std::vector<double> found = data.found(tile);
    for (int64_t i = 0; i < one.rows; ++i) EXPECT_TRUE(std::isnan(found[static_cast<size_t>(i)])) << "row of a NaN";
    if (rows == 2) {
      EXPECT_FALSE(std::isnan(found[static_cast<size_t>(one.rows)])) << "the other row";
    }
  }
}

TEST(PackedDecodeEmulation, ManyColumns) {
  // Groups of several bricks; more bricks than a block asks for ahead, and than lie in shared memory at a time.
  for (const int rows : {1, 3, 4, 6, 16}) {
    Case one{.rows = 32, .columns = 128 * 37 + 40, .bits = 2, .group_size = 256, .zeros = true, .num_x_rows = rows};
    one.wide = rows != 6;
    one.normed = rows == 3;
    expect_near(one, rows);
    one.group_size = 64;
    expect_near(one, 0);
  }
  // Bit by bit, of a zero point for all and of one each.
  for (const int bits : {1, 2, 3})
    for (const bool zeros : {false, true}) {
      Case one{.rows = 96, .columns = 128 * 37 + 40, .bits = bits, .group_size = 256, .zeros = zeros};
      one.wide = !(one.gated = zeros);
      one.normed = bits == 2;
      expect_near(one);
      if (bits == 3 || zeros) continue;
      one.step = 2;
      expect_near(one);
    }
}

TEST(PackedDecodeEmulation, RowsOfABlockOnAndOn) {
  // Through shared memory a block asks for its next rows before the first are done: of a multiprocessor's share of a
  // head, and of columns enough for a second turn.
  for (const int bits : {1, 2, 3})
    for (const int64_t columns : {128 * 17, 128 * 67 + 8}) {
      Case one{.rows = 16 * 11 - 5, .columns = columns, .bits = bits, .group_size = 128, .zeros = bits == 2};
      one.wide = true;
      one.normed = bits == 3 && columns < 128 * 64;  // of more, squares of numbers so large are no floats
      expect_near(one, {{11, 16}, {9, 16}});
    }
  Case gated{.rows = 32 * 10, .columns = 128 * 19, .bits = 2, .group_size = 128, .zeros = true};
  gated.gated = gated.normed = true;
  expect_near(gated, {{10, 16}, {4, 16}});
}

TEST(PackedDecodeEmulation, OfNothingIsNothing) {
  for (const int bits : {1, 2, 3})
    for (const DecodeTile tile : {DecodeTile{1, 16}, DecodeTile{4, 16}}) {
      Case one{.rows = 32, .columns = 384, .bits = bits, .group_size = 128, .zeros = true, .wide = true};
      Data data(one);
      std::fill(data.x.begin(), data.x.end(), uint16_t{0});
      for (const double y : data.found(tile)) EXPECT_EQ(y, 0) << bits << " bits, tile " << tile.row_bricks;
    }
}

}  // namespace
}  // namespace satin::kernels
