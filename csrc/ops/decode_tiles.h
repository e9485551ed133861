// Which tile of the decode kernels is fastest, as measured: a table a GPU, written by `satin bench --tune FILE`.
//
//   {"device": "NVIDIA H200", "version": ..., "columns": [...], "tiles": [[2, 64, 16, 512, 64, 4, 16, 11.0, 17.7],
//   ...]}
//
// A line: bits, group size (128: that or more), rows of x (up to 1, 4, 8 or 16), the matrix in bricks (rows, columns),
// the tile (bricks of rows, warps), and microseconds with it and with the rule's. Matrices that no line is near to, and
// other GPUs, get the rule's (kernels/decode_tile.h).
#pragma once
#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "kernels/decode_tile.h"

namespace satin::ops {

/// What a line is of: groups and rows of x by classes.
struct TileCase {
  int bits;
  int64_t group_size, num_x_rows;
  int64_t row_bricks, column_bricks;
};
TileCase tile_case(const kernels::PackedShape& shape, int64_t num_x_rows);

struct TunedTile {
  TileCase of;
  kernels::DecodeTile tile;
  double us, us_by_rule;
};

struct DecodeTiles {
  std::string device, version;
  std::vector<TunedTile> tiles;

  /// `where` names the file in errors (UserError).
  static DecodeTiles parse(const std::string& text, const std::string& where);
  std::string json() const;
  /// The nearest line of the same class whose rows and columns are within an eighth of the shape's; else {}: by rule.
  kernels::DecodeTile find(const kernels::PackedShape& shape, int64_t num_x_rows, bool gated) const;
};

/// Of the GPU: by the table in the file that SATIN_DECODE_TILES names, if it is of this GPU, or else by one of
/// csrc/ops/decode_tiles/*.json, which Satin is built with; {} without any. Throws UserError for a file
/// that cannot be read.
kernels::DecodeTile tuned_tile(c10::Device device, const kernels::PackedShape& shape, int64_t num_x_rows, bool gated);

}  // namespace satin::ops
