#include "kernels/packed_weight.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/packed_lane.h"
#include "kernels/fake_quant_math.h"
#include "kernels/packed_a16.h"
#include "kernels/packed_matmul.h"

namespace satin::kernels {
namespace {

/// Of 3-bit codes the high bits, from bit 2 on, are a plane; of all others' planes bit 0 is the first.
constexpr LanePlace place_in_plane(int bits, int shift, int i) {
  return shift == 0 ? lane_place(bits, i / kEight, i % kEight) : high_place(i / kEight, i % kEight);
}

/// A lane's 32 codes of a row -> its words in one plane: `kBits` bits from bit kShift on. `codes` is the lane's first.
template <int kBits, int kShift>
SATIN_INLINE void pack_row(const uint8_t* codes, uint32_t (&words)[kBits]) {
#pragma GCC unroll 32
  for (int i = 0; i < kSegments * kEight; ++i) {
    const LanePlace place = place_in_plane(kBits, kShift, i);
    const uint32_t code = codes[i / kEight * kSegmentColumns + i % kEight];
    words[place.word] |= (code >> kShift & ((1u << kBits) - 1)) << place.bit;
  }
}

template <int kBits, int kShift>
SATIN_INLINE void unpack_row(const uint32_t (&words)[kBits], uint8_t* codes) {
#pragma GCC unroll 32
  for (int i = 0; i < kSegments * kEight; ++i) {
    const LanePlace place = place_in_plane(kBits, kShift, i);
    const uint32_t code = words[place.word] >> place.bit & ((1u << kBits) - 1);
    codes[i / kEight * kSegmentColumns + i % kEight] |= static_cast<uint8_t>(code << kShift);
  }
}

/// codes [16, 128] of a brick to and from one plane.
template <int kBits, int kShift>
SATIN_INLINE void pack_plane(const uint8_t* codes, uint32_t* plane) {
  for (int lane = 0; lane < kLanes; ++lane)
    for (int second_row = 0; second_row < 2; ++second_row) {
      uint32_t words[kBits] = {};
      pack_row<kBits, kShift>(codes + (lane / 4 + 8 * second_row) * kBrickColumns + lane % 4 * kEight, words);
      for (int i = 0; i < kBits; ++i) plane[plane_word(kBits, lane, second_row, i)] = words[i];
    }
}
template <int kBits, int kShift>
SATIN_INLINE void unpack_plane(const uint32_t* plane, uint8_t* codes) {
  for (int lane = 0; lane < kLanes; ++lane)
    for (int second_row = 0; second_row < 2; ++second_row) {
      uint32_t words[kBits];
      for (int i = 0; i < kBits; ++i) words[i] = plane[plane_word(kBits, lane, second_row, i)];
      unpack_row<kBits, kShift>(words, codes + (lane / 4 + 8 * second_row) * kBrickColumns + lane % 4 * kEight);
    }
}

/// body(index of the brick's first code, its rows, its columns, its words), brick by brick.
template <class Words, class Body>
SATIN_INLINE void over_bricks(const PackedShape& shape, int64_t begin, int64_t end, Words* words, const Body& body) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t column = 0; column < shape.column_bricks(); ++column) {
      const int64_t first_row = row * kBrickRows, first_column = column * kBrickColumns;
      body(first_row * shape.num_columns + first_column, std::min<int64_t>(kBrickRows, shape.num_rows - first_row),
           static_cast<size_t>(std::min<int64_t>(kBrickColumns, shape.num_columns - first_column)),
           words + (row * shape.column_bricks() + column) * shape.brick_words());
    }
}

template <int kBits>
SATIN_INLINE void pack_loop(const PackedShape* shape, int64_t begin, int64_t end, const uint8_t* codes,
                            uint32_t* words) {
  over_bricks(*shape, begin, end, words, [&](int64_t first, int64_t rows, size_t columns, uint32_t* brick) {
    uint8_t in_brick[kBrickRows * kBrickColumns] = {};
    for (int64_t r = 0; r < rows; ++r)
      memcpy(in_brick + r * kBrickColumns, codes + first + r * shape->num_columns, columns);
    pack_plane<low_bits(kBits), 0>(in_brick, brick);
    if constexpr (kBits == 3) pack_plane<1, 2>(in_brick, brick + low_plane_words(kBits));
  });
}

template <int kBits>
SATIN_INLINE void unpack_loop(const PackedShape* shape, int64_t begin, int64_t end, const uint32_t* words,
                              uint8_t* codes) {
  over_bricks(*shape, begin, end, words, [&](int64_t first, int64_t rows, size_t columns, const uint32_t* brick) {
    uint8_t in_brick[kBrickRows * kBrickColumns] = {};
    unpack_plane<low_bits(kBits), 0>(brick, in_brick);
    if constexpr (kBits == 3) unpack_plane<1, 2>(brick + low_plane_words(kBits), in_brick);
    for (int64_t r = 0; r < rows; ++r)
      memcpy(codes + first + r * shape->num_columns, in_brick + r * kBrickColumns, columns);
  });
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
  if (args.num_rows > kMostHalfRows && args.norm_weight)
    refuse("more than " + std::to_string(kMostHalfRows) + " rows with a norm");
  if (args.gated && (args.wide || args.residual || shape.num_rows % (2 * kBrickRows) != 0))
    refuse("a gate of " + std::to_string(shape.num_rows) + " rows, or with fp32 results or a residual");
  if (shape.num_columns % 8 != 0) refuse("columns " + std::to_string(shape.num_columns) + " (a multiple of 8)");
  if (shape.num_groups() > 1 && (shape.group_size & (shape.group_size - 1)) != 0)
    refuse("group_size " + std::to_string(shape.group_size) + " (a power of two, or a whole row)");
  if (args.tile != DecodeTile{} && !has_decode_tile(shape, args.num_rows, args.gated, args.tile))
    refuse("a tile of " + std::to_string(args.tile.row_bricks) + " bricks of rows and " +
           std::to_string(args.tile.warps) + " warps");
  if (args.w.step != 1 && (args.w.step != 2 || shape.bits > 2 || args.w.zeros))
    refuse("step " + std::to_string(args.w.step));
}

void check_a16(const PackedMatrix& w, int64_t num_rows) {
  check(w.shape);
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("packed_a16: " + what); };
  const PackedShape& shape = w.shape;
  if (num_rows < 0 || num_rows > std::numeric_limits<int>::max()) refuse("rows of x " + std::to_string(num_rows));
  if (w.scale_dtype != Half::kBFloat16) refuse("scales are to be bfloat16");
  if (shape.num_columns % 8 != 0) refuse("columns " + std::to_string(shape.num_columns) + " (a multiple of 8)");
  if (shape.num_groups() > 1 && (shape.group_size & (shape.group_size - 1)) != 0)
    refuse("group_size " + std::to_string(shape.group_size) + " (a power of two, or a whole row)");
  if (w.step != 1 && (w.step != 2 || shape.bits > 2)) refuse("step " + std::to_string(w.step));
  if (!w.zeros && (w.zero < 0 || w.zero > 255)) refuse("zero " + std::to_string(w.zero));
}

CodePlace place_of(const PackedShape& shape, int64_t row, int64_t column) {
  const int r = static_cast<int>(row % kBrickRows), c = static_cast<int>(column % kBrickColumns);
  const int lane = r % 8 * 4 + c % kSegmentColumns / kEight;
  const int64_t brick = (row / kBrickRows * shape.column_bricks() + column / kBrickColumns) * shape.brick_words();
  const int segment = c / kSegmentColumns, in_eight = c % kEight;
  const auto in_plane = [&](int64_t plane, int bits, const LanePlace& place, int64_t& word, int& bit) {
    word = plane + plane_word(bits, lane, r / 8, place.word);
    bit = place.bit;
  };
  CodePlace place{};
  const int low = low_bits(shape.bits);
  in_plane(brick, low, lane_place(low, segment, in_eight), place.word, place.bit);
  if (shape.bits == 3)
    in_plane(brick + low_plane_words(3), 1, high_place(segment, in_eight), place.high_word, place.high_bit);
  return place;
}

int64_t scale_index(const PackedShape& shape, int64_t row, int64_t group) {
  const int64_t r = row % kBrickRows;
  return ((row / kBrickRows * shape.num_groups() + group) * 8 + r % 8) * 2 + r / 8;
}

void pack_codes(const PackedShape& shape, int64_t brick_row_begin, int64_t brick_row_end, const uint8_t* codes,
                uint32_t* words) {
  for_bits(shape.bits,
           [&]<int kBits>() { run_widest<pack_loop<kBits>>(&shape, brick_row_begin, brick_row_end, codes, words); });
}

void unpack_codes(const PackedShape& shape, int64_t brick_row_begin, int64_t brick_row_end, const uint32_t* words,
                  uint8_t* codes) {
  for_bits(shape.bits,
           [&]<int kBits>() { run_widest<unpack_loop<kBits>>(&shape, brick_row_begin, brick_row_end, words, codes); });
}

}  // namespace satin::kernels
