#include "kernels/packed_weight.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernels/packed_matmul.h"

namespace satin::kernels {
namespace {

/// Word of the buffer: number `word` of a lane, in chunks of four of the `lane_words` that the plane has.
int64_t lane_word(int64_t plane, int lane_words, int lane, int word) {
  const int width = std::min(lane_words, 4);
  return plane + (static_cast<int64_t>(word / width) * kLanes + lane) * width + word % width;
}

}  // namespace

void check(const PackedShape& shape) {
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("packed weight: " + what); };
  if (shape.num_rows < 1 || shape.num_columns < 1)
    refuse(std::to_string(shape.num_rows) + " x " + std::to_string(shape.num_columns));
  if (shape.bits != 1 && shape.bits != 2 && shape.bits != 3 && shape.bits != 4 && shape.bits != 8)
    refuse("bits " + std::to_string(shape.bits) + " (1, 2, 3, 4 or 8)");
  if (shape.group_size < 32 || shape.group_size % 32 != 0)
    refuse("group_size " + std::to_string(shape.group_size) + " (a multiple of 32)");
}

void check(const DecodeArgs& args) {
  check(args.w.shape);
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("packed decode: " + what); };
  const PackedShape& shape = args.w.shape;
  if (args.num_rows < 1 || args.num_rows > kMostDecodeRows) refuse("rows of x " + std::to_string(args.num_rows));
  if (args.num_rows > kMostHalfRows && args.dtype == Half::kFloat16)
    refuse("more than " + std::to_string(kMostHalfRows) + " rows in float16");
  if (shape.num_columns % 8 != 0) refuse("columns " + std::to_string(shape.num_columns) + " (a multiple of 8)");
  if (shape.num_groups() > 1 && (shape.group_size & (shape.group_size - 1)) != 0)
    refuse("group_size " + std::to_string(shape.group_size) + " (a power of two, or a whole row)");
  if (args.w.step != 1 && (args.w.step != 2 || shape.bits > 2 || args.w.zeros))
    refuse("step " + std::to_string(args.w.step));
}

CodePlace place_of(const PackedShape& shape, int64_t row, int64_t column) {
  const int r = static_cast<int>(row % kBrickRows), c = static_cast<int>(column % kBrickColumns);
  const int segment = c / 32, lane = r % 8 * 4 + c % 32 / 8, second_row = r / 8, four = c % 8 / 4;
  const int byte = 8 * (c % 4 / 2 + 2 * (c % 2));  // c0 c2 c1 c3
  const int64_t brick = (row / kBrickRows * shape.column_bricks() + column / kBrickColumns) * shape.brick_words();
  const auto at = [&](int64_t plane, int bits, int64_t& word, int& bit) {
    const int fours = 8 / bits, number = bits == 1 ? segment + 4 * four : segment % fours;
    word = lane_word(plane, 2 * bits, lane, bits * second_row + (bits == 1 ? 0 : segment / fours * 2 + four));
    bit = byte + bits * number;
  };
  CodePlace place{};
  at(brick, shape.bits == 3 ? 2 : shape.bits, place.word, place.bit);
  if (shape.bits == 3) at(brick + int64_t{4} * kLanes, 1, place.high_word, place.high_bit);
  return place;
}

int64_t scale_index(const PackedShape& shape, int64_t row, int64_t group) {
  const int64_t r = row % kBrickRows;
  return ((row / kBrickRows * shape.num_groups() + group) * 8 + r % 8) * 2 + r / 8;
}

void pack_codes(const PackedShape& shape, int64_t brick_row_begin, int64_t brick_row_end, const uint8_t* codes,
                uint32_t* words) {
  const int64_t a_row = shape.column_bricks() * shape.brick_words();
  std::fill(words + brick_row_begin * a_row, words + brick_row_end * a_row, 0u);
  const int64_t last = std::min(brick_row_end * kBrickRows, shape.num_rows);
  for (int64_t row = brick_row_begin * kBrickRows; row < last; ++row)
    for (int64_t column = 0; column < shape.num_columns; ++column) {
      const uint32_t code = codes[row * shape.num_columns + column];
      const CodePlace place = place_of(shape, row, column);
      words[place.word] |= (shape.bits == 3 ? code & 3u : code) << place.bit;
      if (shape.bits == 3) words[place.high_word] |= (code >> 2) << place.high_bit;
    }
}

void unpack_codes(const PackedShape& shape, int64_t brick_row_begin, int64_t brick_row_end, const uint32_t* words,
                  uint8_t* codes) {
  const int64_t last = std::min(brick_row_end * kBrickRows, shape.num_rows);
  const uint32_t mask = shape.bits == 3 ? 3u : (1u << shape.bits) - 1;
  for (int64_t row = brick_row_begin * kBrickRows; row < last; ++row)
    for (int64_t column = 0; column < shape.num_columns; ++column) {
      const CodePlace place = place_of(shape, row, column);
      uint32_t code = words[place.word] >> place.bit & mask;
      if (shape.bits == 3) code |= (words[place.high_word] >> place.high_bit & 1u) << 2;
      codes[row * shape.num_columns + column] = static_cast<uint8_t>(code);
    }
}

}  // namespace satin::kernels
