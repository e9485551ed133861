// Operand A of packed_a16.cu on the CPU (kernels/cuda/emulation.h): the weights that a warp makes of a brick, in the
// places that the tensor cores read, are round(scale * level) of the packed codes, bit for bit.
#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

#include "kernels/cuda/ptx.cuh"

// What packed_fragments.cuh takes from CUDA's headers beyond what is emulated. One rounding: what is rounded here has
// fewer digits than a float.
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  const auto one = [](__nv_bfloat16 u, __nv_bfloat16 v, __nv_bfloat16 w) {
    const double exact = double{__bfloat162float(u)} * __bfloat162float(v) + __bfloat162float(w);
    EXPECT_EQ(static_cast<double>(static_cast<float>(exact)), exact);
    return __float2bfloat16_rn(static_cast<float>(exact));
  };
  return {one(a.x, b.x, c.x), one(a.y, b.y, c.y)};
}
inline __nv_bfloat162 __hadd2(__nv_bfloat162 a, __nv_bfloat162 b) { return __hfma2(a, __float2bfloat162_rn(1), b); }

#include "kernels/cuda/packed_fragments.cuh"
#include "kernels/packed_weight.h"

namespace satin::kernels {
namespace {

template <int kCount, class Function>
void for_each(const Function& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) { (f(std::integral_constant<int, kI>{}), ...); }
  (std::make_integer_sequence<int, kCount>{});
}

/// A brick's operand A: [segment][16 columns][lane][register].
struct Operand {
  uint32_t registers[4][2][kLanes][4];
  /// As wgmma's operand A in registers: the row's lane of a quad has columns 2 q, 2 q + 1 and 8 more, a row and 8 more.
  float at(int row, int column) const {
    const int lane = row % 8 * 4 + column % 8 / 2, index = row / 8 + 2 * (column % 16 / 8);
    const uint32_t pair = registers[column / 32][column / 16 % 2][lane][index];
    return __bfloat162float({static_cast<uint16_t>(pair >> (16 * (column % 2)))});
  }
};

/// zeros, scales: of rows g and g + 8.
template <int kBits, bool kZeros>
Operand operand_of(const std::vector<uint32_t>& brick, int step, int line_zero, const uint8_t* zeros,
                   const uint16_t* scales) {
  Operand found;
  LevelLine lines[4];
  for (int s = 0; s < 4; ++s) lines[s] = level_line<kBits>(s, step, line_zero);
  emulation::Block(kLanes, [&] {
    const int lane = static_cast<int>(threadIdx.x), g = lane / 4;
    uint32_t words[2 * kBits];
    for (int i = 0; i < 2 * kBits; ++i) {  // [chunk][lane][4] or what there is; of 3 bits two planes
      const bool high = kBits == 3 && i >= 4;
      const int chunk = high || kBits == 1 ? 2 : 4, in_plane = high ? i - 4 : i;
      words[i] = brick[static_cast<size_t>((high ? 4 * kLanes : 0) + in_plane / chunk * kLanes * chunk + lane * chunk +
                                           in_plane % chunk)];
    }
    exchange_brick<kBits>(words, QuadLane(lane));
    const RowZero<kBits> zero[2] = {RowZero<kBits>(zeros[2 * g]), RowZero<kBits>(zeros[2 * g + 1])};
    for_each<4>([&](auto segment) {
      for_each<8>([&](auto index) {
        constexpr int kSegment = decltype(segment)::value, kI = decltype(index)::value, kRow = kI % 2;
        found.registers[kSegment][kI / 4][lane][kI % 4] = weights<kBits, kZeros, kSegment, kRow, kI / 4, kI / 2 % 2>(
            words, lines[kSegment], zero[kRow], scales[2 * g + kRow] * 0x00010001u);
      });
    });
  }).run();
  return found;
}

/// Codes that all differ from their neighbours, and every scale's and zero's row.
template <int kBits, bool kZeros>
void expect_weights(int step, int first_zero, int last_zero) {
  const PackedShape shape{kBrickRows, kBrickColumns, kBits, kBrickColumns};
  std::mt19937 random(kBits);
  for (int zero = first_zero; zero <= last_zero; ++zero) {
    std::vector<uint8_t> codes(kBrickRows * kBrickColumns);
    for (size_t i = 0; i < codes.size(); ++i)
      codes[i] =
          static_cast<uint8_t>(zero == first_zero ? (i * 7 + i / 128 * 3) % (1 << kBits) : random() % (1 << kBits));
    std::vector<uint32_t> brick(static_cast<size_t>(shape.num_words()));
    pack_codes(shape, 0, 1, codes.data(), brick.data());
    uint8_t zeros[kBrickRows];
    uint16_t scales[kBrickRows];
    for (int i = 0; i < kBrickRows; ++i) {
      zeros[i] = static_cast<uint8_t>(kZeros ? (zero + 37 * i) % 256 : zero);
      scales[i] = static_cast<uint16_t>(0x3c00 + random() % 0x100);  // with all digits
    }
    const Operand found = operand_of<kBits, kZeros>(brick, step, kZeros ? 0 : zero, zeros, scales);
    for (int row = 0; row < kBrickRows; ++row)
      for (int column = 0; column < kBrickColumns; ++column) {
        const int at = row % 8 * 2 + row / 8, code = codes[static_cast<size_t>(row * kBrickColumns + column)];
        const float level = static_cast<float>(step * code - zeros[at]);
        const float expected = __bfloat162float(__float2bfloat16_rn(__bfloat162float({scales[at]}) * level));
        ASSERT_EQ(found.at(row, column), expected)
            << kBits << " bits, step " << step << ", zero " << zero << ", row " << row << ", column " << column;
      }
  }
}

TEST(PackedA16Fragments, AreTheDequantizedWeights) {
  expect_weights<1, false>(1, 0, kMostLineZero);
  expect_weights<2, false>(1, 0, kMostLineZero);
  expect_weights<3, false>(1, 0, kMostLineZero);
  expect_weights<4, false>(1, 0, kMostLineZero);
}

TEST(PackedA16Fragments, HaveOddLevels) {
  expect_weights<1, false>(2, 0, kMostLineZero);
  expect_weights<2, false>(2, 0, kMostLineZero);
  expect_weights<1, true>(2, 0, 255);
  expect_weights<2, true>(2, 0, 255);
}

TEST(PackedA16Fragments, TakeAnyZeroPoint) {
  expect_weights<1, true>(1, 0, 255);
  expect_weights<2, true>(1, 0, 255);
  expect_weights<3, true>(1, 0, 255);
  expect_weights<4, true>(1, 0, 255);
  expect_weights<8, true>(1, 0, 255);
}

}  // namespace
}  // namespace satin::kernels
