// How the kernels for few rows of x (packed_matmul.h) are cut into blocks. All tiles give the same result but for the
// order of sums; which is fastest depends on the matrix and the GPU (`satin bench --tune`).
#pragma once
#include <cstdint>

#include "kernels/packed_weight.h"

namespace satin::kernels {

struct DecodeTile {
  int row_bricks = 0;  ///< of a block, one above the other; 0: by rule
  int warps = 0;       ///< of a block: they take its bricks' columns in turn
  bool operator==(const DecodeTile&) const = default;
};

inline constexpr DecodeTile kDecodeTiles[] = {{1, 16}, {2, 8}, {2, 16}, {4, 8}, {4, 16}};

/// Rows of x that are multiplied as integers (packed_decode.cu), in float16 or bfloat16; more are bfloat16
/// (packed_skinny.cu).
inline constexpr int kMostHalfRows = 4;

/// The first so many tiles are compiled: few where a kernel takes many registers (8-bit codes, groups of 32), and for
/// more than kMostHalfRows none of four bricks, which gain nothing there.
constexpr int num_decode_tiles(bool many_registers, bool many_rows) { return many_registers ? 2 : many_rows ? 3 : 5; }
inline int num_decode_tiles(const PackedShape& shape, int64_t num_x_rows) {
  const bool many_registers = shape.bits == 8 || (shape.group_size == 32 && shape.num_groups() > 1);
  return num_decode_tiles(many_registers, num_x_rows > kMostHalfRows);
}

/// A gate and its up are in one block.
inline bool has_decode_tile(const PackedShape& shape, int64_t num_x_rows, bool gated, DecodeTile tile) {
  if (gated && tile.row_bricks == 1) return false;
  for (int i = 0; i < num_decode_tiles(shape, num_x_rows); ++i)
    if (kDecodeTiles[i] == tile) return true;
  return false;
}

/// Blocks that a multiprocessor runs at the same time have 16 warps together, in one block or two; each should have one
/// share of the rows.
inline DecodeTile decode_tile_by_rule(const PackedShape& shape, int64_t num_x_rows, bool gated,
                                      int num_multiprocessors) {
  const int64_t row_bricks = shape.row_bricks();
  const auto has = [&](DecodeTile tile) { return has_decode_tile(shape, num_x_rows, gated, tile); };
  if (row_bricks <= num_multiprocessors && !gated) return {1, 16};
  if (row_bricks <= 2 * num_multiprocessors && has({2, 16})) return {2, 16};
  if (!has({4, 8})) return {2, 8};
  return row_bricks <= 4 * num_multiprocessors ? DecodeTile{4, 16} : DecodeTile{4, 8};
}

}  // namespace satin::kernels
