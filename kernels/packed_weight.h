// Low-bit weights as matrix products read them: one layout for decode, prefill and backward, made from export codes.
//
// W [N, K], level = step * code - zero, weight = scale * level (csrc/quant/codes.h), a scale and a zero for `group_size`
// weights of a row. N is filled up to whole bricks, K too; what fills up is never part of a result.
//
//   brick   16 rows x 128 columns; bricks [ceil(N / 16)][ceil(K / 128)], each brick_words(bits) words of 32 bits
//   tile    t = 0 .. 7 of a brick: 16 columns, the A operand of mma.m16n8k16
//   lane    32 a brick: g = lane / 4, q = lane % 4. Of tile t it has of rows g and g + 8 four neighbouring columns
//
//             c = 32 (t / 2) + 8 q + 4 (t % 2) + {0, 1, 2, 3}
//
//           as pairs (c0 c1) and (c2 c3), which are pairs 2 t and 2 t + 1 of the row's 16
//           (a sum over columns may take them in any order; this one reads 8 neighbouring activations at once, and
//           any group of 32 or more is whole tiles)
//   word    16 / b pairs of b bits: pair i of a word has its even column at bit b i and its odd column at bit 16 + b i,
//           so that one AND and OR puts a pair's codes into the mantissas of two 16-bit numbers
//                  31          16 15           0
//             b=2  ..| c1 c1 c1 |  ..| c0 c0 c0     (pairs 2, 1, 0 from right to left in each half)
//           A lane has b words of row g, then b of row g + 8: both rows' pairs are at the same bits. Words come in
//           chunks of four (or what there is), of all lanes: [chunk][lane][4], 16-byte loads without gaps.
//   3 bits  a plane of the two low bits as above, then a plane of the high bit, a word a row: pair 8 u + i at bit 2 i + u.
//   scales  [row brick][group][8] pairs of 16-bit numbers: rows g and g + 8. zeros: the same of bytes.
#pragma once
#include <cstdint>

namespace satin::kernels {

inline constexpr int kBrickRows = 16, kBrickColumns = 128, kBrickTiles = 8, kLanes = 32;

struct PackedShape {
  int64_t num_rows, num_columns;
  int bits;            ///< 1, 2, 3, 4, 8
  int64_t group_size;  ///< a multiple of 32, at most num_columns

  int64_t row_bricks() const { return (num_rows + kBrickRows - 1) / kBrickRows; }
  int64_t column_bricks() const { return (num_columns + kBrickColumns - 1) / kBrickColumns; }
  int64_t num_groups() const { return (num_columns + group_size - 1) / group_size; }
  /// 32-bit words of one brick: a lane has 64 codes.
  int64_t brick_words() const { return int64_t{2} * bits * kLanes; }
  int64_t num_words() const { return row_bricks() * column_bricks() * brick_words(); }
  /// Pairs of scales, or of zeros.
  int64_t num_pairs() const { return row_bricks() * num_groups() * (kBrickRows / 2); }
};

/// Throws std::invalid_argument naming the field.
void check(const PackedShape& shape);

/// Where a code lies: bit `bit` and upwards of `word` (of the whole buffer); of 3 bits the two low ones, and the high one
/// at `high_bit` of `high_word`.
struct CodePlace {
  int64_t word;
  int bit;
  int64_t high_word;
  int high_bit;
};
CodePlace place_of(const PackedShape& shape, int64_t row, int64_t column);
/// Index of a row's group among scales or zeros [2 num_pairs].
int64_t scale_index(const PackedShape& shape, int64_t row, int64_t group);

/// codes [N, K], below 2^bits -> words. Rows [row_begin, row_end) of bricks, so that callers split them over threads.
void pack_codes(const PackedShape& shape, int64_t brick_row_begin, int64_t brick_row_end, const uint8_t* codes,
                uint32_t* words);
void unpack_codes(const PackedShape& shape, int64_t brick_row_begin, int64_t brick_row_end, const uint32_t* words,
                  uint8_t* codes);

}  // namespace satin::kernels
