// packed_weight.h: the packed words against another reading of the header's picture, tails, ranges, sizes, refusals.
#include "kernels/packed_weight.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <stdexcept>
#include <vector>

namespace satin::kernels {
namespace {

/// high: the plane of 3 bits' high ones.
/// Field `bits` wide of a plane that has `bits` words a lane and row, read off the picture: whose row, which columns.
uint32_t field_of_plane(const uint32_t* plane, int bits, int row_of_brick, int column_of_brick, bool high = false) {
  const int g = row_of_brick % 8, T = column_of_brick / 32, q = column_of_brick % 32 / 8;
  const int f = column_of_brick % 8 / 4, c = column_of_brick % 4;
  const std::map<int, int> byte_of_column = {{0, 0}, {2, 1}, {1, 2}, {3, 3}};  // "from the lowest: c0 c2 c1 c3"
  const int byte = byte_of_column.at(c);
  int word = 0, bit_of_byte = 0;
  if (bits == 8) word = 2 * T + f;
  if (bits == 4) word = 2 * (T / 2) + f, bit_of_byte = 4 * (T % 2);
  if (bits == 2) word = f, bit_of_byte = 2 * T;
  if (bits == 1) bit_of_byte = high ? 2 * T + f : T + 4 * f;
  // Row g's words, then row g + 8's, or in turn where codes have two bits; in chunks of four or what there is:
  // [chunk][lane][4].
  const int upper = row_of_brick >= 8;
  word = bits == 2 ? 2 * word + upper : word + bits * upper;
  const int chunk_words = bits == 1 ? 2 : 4, lane = 4 * g + q;
  const uint32_t found = plane[word / chunk_words * 32 * chunk_words + lane * chunk_words + word % chunk_words];
  return found >> (8 * byte) >> bit_of_byte & ((1u << bits) - 1);
}

uint32_t code_in_picture(const PackedShape& shape, const std::vector<uint32_t>& words, int64_t row, int64_t column) {
  const int64_t bricks_a_row = (shape.num_columns + 127) / 128;
  const uint32_t* brick = words.data() + (row / 16 * bricks_a_row + column / 128) * 64 * shape.bits;
  const int r = static_cast<int>(row % 16), c = static_cast<int>(column % 128);
  if (shape.bits != 3) return field_of_plane(brick, shape.bits, r, c);
  return field_of_plane(brick, 2, r, c) | field_of_plane(brick + 128, 1, r, c, true) << 2;
}

std::vector<uint8_t> random_codes(const PackedShape& shape) {
  std::mt19937 random(static_cast<unsigned>(shape.bits * 1000 + shape.num_columns));
  std::vector<uint8_t> codes(static_cast<size_t>(shape.num_rows * shape.num_columns));
  for (auto& code : codes) code = static_cast<uint8_t>(random() & ((1u << shape.bits) - 1));
  return codes;
}

const std::vector<int> kAllBits = {1, 2, 3, 4, 8};
const std::vector<std::pair<int64_t, int64_t>> kSizes = {{16, 128}, {1, 1}, {17, 129}, {40, 320}, {33, 100}, {16, 31}};

TEST(PackedWeight, IsThePictureOfTheHeader) {
  for (const int bits : kAllBits)
    for (const auto& [rows, columns] : kSizes) {
      SCOPED_TRACE(testing::Message() << bits << " bits, " << rows << " x " << columns);
      const PackedShape shape{rows, columns, bits, 32};
      const std::vector<uint8_t> codes = random_codes(shape);
      std::vector<uint32_t> words(static_cast<size_t>(shape.num_words()), 0xdeadbeef);
      pack_codes(shape, 0, shape.row_bricks(), codes.data(), words.data());
      std::vector<uint32_t> fields(words.size());  // every bit that belongs to a code of the matrix
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < columns; ++column) {
          const uint32_t code = codes[static_cast<size_t>(row * columns + column)];
          ASSERT_EQ(code_in_picture(shape, words, row, column), code) << row << " " << column;
          const CodePlace place = place_of(shape, row, column);
          const uint32_t mask = bits == 3 ? 3 : (1u << bits) - 1;
          uint32_t placed = words[static_cast<size_t>(place.word)] >> place.bit & mask;
          if (bits == 3) placed |= (words[static_cast<size_t>(place.high_word)] >> place.high_bit & 1) << 2;
          ASSERT_EQ(placed, code) << row << " " << column;
          ASSERT_EQ(fields[static_cast<size_t>(place.word)] & mask << place.bit, 0u) << "two codes in one place";
          fields[static_cast<size_t>(place.word)] |= mask << place.bit;
          if (bits == 3) fields[static_cast<size_t>(place.high_word)] |= 1u << place.high_bit;
        }
      for (size_t i = 0; i < words.size(); ++i) ASSERT_EQ(words[i] & ~fields[i], 0u) << "what fills up is zero";
      std::vector<uint8_t> back(codes.size(), 0xee);
      unpack_codes(shape, 0, shape.row_bricks(), words.data(), back.data());
      EXPECT_EQ(back, codes);
    }
}

TEST(PackedWeight, RangesOfBrickRowsAreTheirOwn) {
  for (const int bits : kAllBits) {
    const PackedShape shape{70, 200, bits, 64};
    const std::vector<uint8_t> codes = random_codes(shape);
    std::vector<uint32_t> whole(static_cast<size_t>(shape.num_words())), parts(whole.size());
    pack_codes(shape, 0, shape.row_bricks(), codes.data(), whole.data());
    std::vector<uint8_t> back(codes.size());
    for (const auto& [begin, end] : {std::pair{4, 5}, {0, 1}, {1, 4}}) {
      pack_codes(shape, begin, end, codes.data(), parts.data());
      unpack_codes(shape, begin, end, whole.data(), back.data());
    }
    EXPECT_EQ(parts, whole);
    EXPECT_EQ(back, codes);
  }
}

TEST(PackedWeight, SizesByHand) {
  const PackedShape shape{33, 300, 3, 64};  // 3 x 3 bricks of 2048 codes of 3 bits
  EXPECT_EQ(shape.num_words(), 9 * 2048 * 3 / 32);
  EXPECT_EQ(shape.num_groups(), 5);
  EXPECT_EQ(shape.num_pairs(), 3 * 5 * 8);
  // [row brick][group][8] pairs of rows g and g + 8.
  EXPECT_EQ(scale_index(shape, 0, 0), 0);
  EXPECT_EQ(scale_index(shape, 8, 0), 1);
  EXPECT_EQ(scale_index(shape, 7, 0), 14);
  EXPECT_EQ(scale_index(shape, 0, 1), 16);
  EXPECT_EQ(scale_index(shape, 32 + 13 - 16, 4), 1 * 80 + 4 * 16 + 5 * 2 + 1);
}

TEST(PackedWeight, RefusesBadShapes) {
  EXPECT_NO_THROW(check(PackedShape{1, 1, 1, 32}));
  for (const PackedShape& bad : {PackedShape{0, 64, 2, 32},
                                 {16, 0, 2, 32},
                                 {16, 64, 5, 32},
                                 {16, 64, 0, 32},
                                 {16, 64, 2, 0},
                                 {16, 64, 2, 16},
                                 {16, 64, 2, 48},
                                 {16, 64, 2, -32}})
    EXPECT_THROW(check(bad), std::invalid_argument) << bad.bits << " " << bad.group_size;
}

}  // namespace
}  // namespace satin::kernels
