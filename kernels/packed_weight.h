// Low-bit weights as matrix products read them: one layout for decode, prefill and backward, made from export codes.
//
// W [N, K], level = step * code - zero, weight = scale * level (csrc/quant/codes.h), a scale and a zero for
// `group_size` weights of a row. N is filled up to whole bricks, K too; what fills up is never part of a result.
//
//   brick   16 rows x 128 columns; bricks [ceil(N / 16)][ceil(K / 128)], each brick_words(bits) words of 32 bits
//   segment T = 0 .. 3 of a brick: 32 columns
//   lane    32 a brick: g = lane / 4, q = lane % 4. Of segment T it has eight neighbouring columns, from 32 T + 8 q on,
//           of rows g and g + 8, as two fours f = 0, 1 of columns c0 c1 c2 c3
//   word    a four of 8-bit codes is a word of bytes, from the lowest: c0 c2 c1 c3. The low half has the even columns:
//           a pair (c0 c1) or (c2 c3) is two 16-bit fields under one mask, and four bytes are 8-bit fields under one.
//           These are the A operands of mma.m16n8k16 (16-bit) and m16n8k32 (8-bit), in columns' order of our own: a sum
//           may take them in any, this one reads 8 neighbouring activations at once, and a group of 32 or more is whole
//           segments. Codes of b < 8 bits: 8 / b fours lie in one word, at bit b i of each byte.
//             b = 8  a row's 8 words: 2 T + f
//             b = 4  a row's 4 words: 2 (T / 2) + f, at bit 4 (T % 2) of each byte
//             b = 2  a row's 2 words: f, at bit 2 T
//             b = 1  a row's 1 word, at bit T + 4 f
//           A lane has row g's words, then row g + 8's, with b = 2 those of f = 0, then of f = 1: that is how
//           mma.m16n8k256, which multiplies bits, takes its A operand (packed_bit_products.cuh). Words come in chunks
//           of four (or what there is), of all lanes: [chunk][lane][4], 16-byte loads without gaps.
//   3 bits  a plane of the two low bits (as b = 2), then a plane of the high bit: a row's 1 word, at bit 2 T + f, so
//           that one shift brings the bits of all segments above their low ones.
//   scales  [row brick][group][8] pairs of 16-bit numbers: rows g and g + 8. zeros: the same of bytes.
#pragma once
#include <cstdint>

namespace satin::kernels {

inline constexpr int kBrickRows = 16, kBrickColumns = 128, kLanes = 32;

struct PackedShape {
  int64_t num_rows, num_columns;
  int bits;            ///< 1, 2, 3, 4, 8
  int64_t group_size;  ///< a multiple of 32; at least num_columns: one group a row

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

/// Where a code lies: bit `bit` and upwards of `word` (of the whole buffer); of 3 bits the two low ones, and the high
/// one at `high_bit` of `high_word`.
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
