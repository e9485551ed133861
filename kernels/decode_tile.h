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
/// The first so many of them are compiled: with 8-bit codes or groups of 32, which take many registers; for more rows
/// of x than kMostHalfRows, which gain nothing from four bricks; else.
inline constexpr int kFewTiles = 2, kSkinnyTiles = 3, kAllTiles = 5;
inline constexpr int kMostHalfRows = 4;

inline int num_decode_tiles(const PackedShape& shape, int64_t num_x_rows) {
  if (shape.bits == 8 || (shape.group_size == 32 && shape.num_groups() > 1)) return kFewTiles;
  return num_x_rows > kMostHalfRows ? kSkinnyTiles : kAllTiles;
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
  const int tiles = num_decode_tiles(shape, num_x_rows);
  if (row_bricks <= num_multiprocessors && !gated) return {1, 16};
  if (tiles == kFewTiles) return {2, 8};
  if (row_bricks <= 2 * num_multiprocessors) return {2, 16};
  if (tiles == kSkinnyTiles) return {2, 8};
  if (row_bricks <= 4 * num_multiprocessors) return {4, 16};
  return {4, 8};
}

}  // namespace satin::kernels
