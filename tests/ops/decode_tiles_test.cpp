// Tables of measured tiles: read back as written, the right line for a shape, what no line is near to, bad files.
#include "ops/decode_tiles.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::ops {
namespace {

using kernels::DecodeTile;

kernels::PackedShape shape(int64_t rows, int64_t columns, int bits, int64_t group_size) {
  return {rows, columns, bits, group_size};
}

constexpr int kProcessors = 132;

TEST(DecodeTiles, ARuleForEveryShape) {
  const auto rule = [](int64_t rows, int64_t num_x_rows = 1, int bits = 2, int64_t group = 64, bool gated = false) {
    return kernels::decode_tile_by_rule(shape(rows, 4096, bits, group), num_x_rows, gated, kProcessors);
  };
  EXPECT_EQ(rule(1024), (DecodeTile{2, 16}));  // little work: half of the multiprocessors
  EXPECT_EQ(rule(16 * kProcessors), (DecodeTile{2, 16}));
  EXPECT_EQ(rule(16 * kProcessors + 1), (DecodeTile{2, 16}));
  EXPECT_EQ(kernels::decode_tile_by_rule(shape(16 * kProcessors, 8192, 2, 64), 1, false, kProcessors),
            (DecodeTile{1, 16}));
  EXPECT_EQ(rule(8192), (DecodeTile{4, 16}));
  EXPECT_EQ(rule(8192, 16), (DecodeTile{2, 8}));
  EXPECT_EQ(rule(14336), (DecodeTile{7, 16}));
  EXPECT_EQ(rule(14336, 1, 2, 64, true), (DecodeTile{8, 16}));
  for (const int64_t rows : {16, 3000, 8192, 30000})
    for (const int64_t num_x_rows : {1, 4, 5, 16})
      for (const int bits : {1, 2, 3, 4, 8})
        for (const int64_t group : {32, 64, 128, 4096})
          for (const bool gated : {false, true}) {
            const DecodeTile tile = rule(rows, num_x_rows, bits, group, gated);
            EXPECT_TRUE(kernels::has_decode_tile(shape(rows, 4096, bits, group), num_x_rows, gated, tile))
                << rows << ' ' << num_x_rows << ' ' << bits << ' ' << group;
            EXPECT_TRUE(!gated || tile.row_bricks > 1);
          }
}

DecodeTiles two_lines() {
  return {"NVIDIA H200",
          "satin 0.1.0",
          {{{2, 64, 4, 512, 64}, {4, 16}, 11, 17.7}, {{2, 64, 4, 512, 32}, {2, 16}, 6.25, 7}}};
}

TEST(DecodeTiles, ReadBackAsWritten) {
  const DecodeTiles found = DecodeTiles::parse(two_lines().json(), "a table");
  EXPECT_EQ(found.device, "NVIDIA H200");
  EXPECT_EQ(found.version, "satin 0.1.0");
  ASSERT_EQ(found.tiles.size(), 2u);
  EXPECT_EQ(found.tiles[1].of.column_bricks, 32);
  EXPECT_EQ(found.tiles[1].tile, (DecodeTile{2, 16}));
  EXPECT_EQ(found.tiles[1].us, 6.25);
  EXPECT_EQ(found.json(), two_lines().json());
  EXPECT_TRUE(DecodeTiles::parse(DecodeTiles{"a GPU", "v", {}}.json(), "an empty table").tiles.empty());
}

TEST(DecodeTiles, TheNearestLineOfTheSameClass) {
  const DecodeTiles table = two_lines();
  const auto find = [&](const kernels::PackedShape& of, int64_t rows, bool gated = false) {
    return table.find(of, rows, gated);
  };
  EXPECT_EQ(find(shape(8192, 8192, 2, 64), 4), (DecodeTile{4, 16}));
  EXPECT_EQ(find(shape(8192, 8192, 2, 64), 2), (DecodeTile{4, 16}));  // 2 to 4 rows
  EXPECT_EQ(find(shape(9000, 8000, 2, 64), 4), (DecodeTile{4, 16}));
  EXPECT_EQ(find(shape(8000, 4300, 2, 64), 4), (DecodeTile{2, 16}));
  EXPECT_EQ(find(shape(8192, 8192, 2, 64), 1), DecodeTile{});
  EXPECT_EQ(find(shape(8192, 8192, 2, 64), 8), DecodeTile{});
  EXPECT_EQ(find(shape(8192, 8192, 2, 128), 4), DecodeTile{});
  EXPECT_EQ(find(shape(8192, 8192, 4, 64), 4), DecodeTile{});
  EXPECT_EQ(find(shape(8192, 6144, 2, 64), 4), DecodeTile{});  // between the two, near to neither
  EXPECT_EQ(find(shape(9400, 8192, 2, 64), 4), DecodeTile{});
}

/// A line may be of a tile that a shape of its class does not have: a gate's of one brick.
TEST(DecodeTiles, NoTileThatTheShapeHasNot) {
  DecodeTiles table = two_lines();
  table.tiles[0].tile = {1, 16};
  EXPECT_EQ(table.find(shape(8192, 8192, 2, 64), 4, false), (DecodeTile{1, 16}));
  EXPECT_EQ(table.find(shape(8192, 8192, 2, 64), 4, true), DecodeTile{});
  table.tiles[0] = {{2, 64, 16, 512, 64}, {4, 16}, 1, 2};  // of more rows than have it
  EXPECT_EQ(table.find(shape(8192, 8192, 2, 64), 16, false), DecodeTile{});
}

TEST(DecodeTiles, RefusesWhatIsNoTable) {
  for (const char* bad : {"", "{", "[]", R"({"device": "a"})", R"({"device": "a", "version": "b", "tiles": [[1, 2]]})",
                          R"({"device": "a", "version": "b", "tiles": [[2, 64, 16, 512, 64, 3, 16, 1, 2]]})",
                          R"({"device": "a", "version": "b", "tiles": [[2, 64, 16, 0, 64, 4, 16, 1, 2]]})",
                          R"({"device": "a", "version": "b", "tiles": [[2, 64, 16, 9, 64, 4, 16, 1, 2, 3]]})"}) {
    try {
      DecodeTiles::parse(bad, "tiles.json");
      FAIL() << bad;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find("tiles.json"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace satin::ops
