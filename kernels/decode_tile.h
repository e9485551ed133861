// How the kernels for few rows of x (packed_matmul.h) are cut into blocks. All tiles give the same result but for the
// order of sums and, of one row times up to three bits, how x is rounded; which is fastest depends on the matrix and
// the GPU (`satin bench --tune`).
#pragma once
#include <cstdint>

#include "kernels/packed_weight.h"

namespace satin::kernels {

struct DecodeTile {
  int row_bricks = 0;  ///< of a block, one above the other; 0: by rule
  int warps = 0;       ///< of a block: they take its bricks' columns in turn
  bool operator==(const DecodeTile&) const = default;
};

/// Those that are worth a measurement.
inline constexpr DecodeTile kDecodeTiles[] = {{1, 16}, {2, 8}, {2, 16}, {4, 16}, {8, 16}};

/// Rows of x that are multiplied as integers or bit by bit (packed_decode_device.cuh), in float16 or bfloat16; more are
/// bfloat16 (packed_skinny.cu).
inline constexpr int kMostHalfRows = 4;

/// Of more than kMostHalfRows, the first so many are compiled: fewer where a kernel takes many registers (8-bit codes,
/// groups of 32).
constexpr int num_skinny_tiles(bool many_registers) { return many_registers ? 2 : 3; }

/// A block has sixteen warps and any number of row bricks for up to kMostHalfRows, else one of the first of
/// kDecodeTiles. A gate and its up are in one block.
inline bool has_decode_tile(const PackedShape& shape, int64_t num_x_rows, bool gated, DecodeTile tile) {
  if (tile.row_bricks < 1 || (gated && tile.row_bricks % 2 != 0)) return false;
  if (num_x_rows <= kMostHalfRows) return tile.warps == 16;
  const int count = num_skinny_tiles(shape.bits == 8 || (shape.group_size == 32 && shape.num_groups() > 1));
  for (int i = 0; i < count; ++i)
    if (kDecodeTiles[i] == tile) return true;
  return false;
}

/// A matrix that is little work for all multiprocessors is left to half of them (up to kMostHalfRows): on the others
/// the next kernel begins, and asks for its weights. Alone it is slower so (3,072 x 2,048 by 5 to 30 %), a token of
/// the 1.2b shape 20 us faster, at 2 bits and at 4.
inline bool is_left_to_half(const PackedShape& shape, int64_t num_x_rows, int num_multiprocessors) {
  constexpr int64_t kLittle = 32;  // bricks of a multiprocessor
  return num_x_rows <= kMostHalfRows && shape.row_bricks() * shape.column_bricks() <= kLittle * num_multiprocessors;
}

/// Blocks that a multiprocessor runs at the same time have 16 warps together, in one block or two; each should have one
/// share of the rows.
inline DecodeTile decode_tile_by_rule(const PackedShape& shape, int64_t num_x_rows, bool gated,
                                      int num_multiprocessors) {
  const int64_t row_bricks = shape.row_bricks(), unit = gated ? 2 : 1;
  if (num_x_rows <= kMostHalfRows) {
    const int64_t blocks = unit * num_multiprocessors,
                  share = is_left_to_half(shape, num_x_rows, num_multiprocessors) ? 2 : 1;
    return {static_cast<int>((row_bricks + blocks - 1) / blocks * unit * share), 16};
  }
  if (row_bricks <= num_multiprocessors && !gated) return {1, 16};
  if (row_bricks <= 2 * num_multiprocessors && has_decode_tile(shape, num_x_rows, gated, {2, 16})) return {2, 16};
  return {2, 8};
}

}  // namespace satin::kernels
