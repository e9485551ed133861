#include "ops/decode_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "ops/decode_tiles_built_in.h"
#include "ops/device.h"

namespace satin::ops {
namespace {

constexpr const char* kColumns[] = {"bits",      "group size", "rows of x", "bricks of rows", "bricks of columns",
                                    "tile rows", "tile warps", "us",        "us by rule"};
constexpr const char* kVariable = "SATIN_DECODE_TILES";

/// How far apart: the larger of the two ratios' logarithms.
double distance(const TileCase& a, const TileCase& b) {
  const auto of = [](int64_t x, int64_t y) {
    return std::abs(std::log(static_cast<double>(x) / static_cast<double>(y)));
  };
  return std::max(of(a.row_bricks, b.row_bricks), of(a.column_bricks, b.column_bricks));
}

TunedTile tile_of_line(const nlohmann::json& line) {
  TunedTile tile{
      {line.at(0), line.at(1), line.at(2), line.at(3), line.at(4)}, {line.at(5), line.at(6)}, line.at(7), line.at(8)};
  const auto& all = kernels::kDecodeTiles;
  if (line.size() != std::size(kColumns)) throw UserError(cat(line.size(), " numbers"));
  if (std::find(std::begin(all), std::end(all), tile.tile) == std::end(all))
    throw UserError(cat("no tile of ", tile.tile.row_bricks, " bricks and ", tile.tile.warps, " warps"));
  if (tile.of.row_bricks < 1 || tile.of.column_bricks < 1) throw UserError("a matrix without bricks");
  return tile;
}

const DecodeTiles* tiles_for(const std::string& device) {
  static std::mutex mutex;
  static std::optional<std::vector<DecodeTiles>> tables;  // an own one first
  const std::lock_guard lock(mutex);
  if (!tables) {
    std::vector<DecodeTiles> found;
    if (const char* path = std::getenv(kVariable); path && *path) {
      found.push_back(DecodeTiles::parse(read_file(path), cat(kVariable, "=", path)));
      log_info(cat("tiles of decode kernels: ", path, ", of ", found.back().device));
    }
    for (const char* text : kBuiltInDecodeTiles)
      if (text) found.push_back(DecodeTiles::parse(text, "built-in table"));
    tables = std::move(found);
  }
  for (const DecodeTiles& table : *tables)
    if (table.device == device) return &table;
  return nullptr;
}

}  // namespace

TileCase tile_case(const kernels::PackedShape& shape, int64_t num_x_rows) {
  return {shape.bits, shape.num_groups() == 1 ? 128 : std::min<int64_t>(shape.group_size, 128),
          num_x_rows == 1   ? 1
          : num_x_rows <= 4 ? 4
          : num_x_rows <= 8 ? 8
                            : 16,
          shape.row_bricks(), shape.column_bricks()};
}

DecodeTiles DecodeTiles::parse(const std::string& text, const std::string& where) {
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    DecodeTiles table{json.at("device"), json.at("version"), {}};
    for (const auto& line : json.at("tiles")) table.tiles.push_back(tile_of_line(line));
    return table;
  } catch (const std::exception& error) {
    throw UserError(cat(where, ": expected a table of `satin bench --tune`, found a line or field that is none: ",
                        error.what(), "; write it again, or unset ", kVariable));
  }
}

std::string DecodeTiles::json() const {
  std::string text =
      cat("{\"device\": ", nlohmann::json(device).dump(), ",\n \"version\": ", nlohmann::json(version).dump(),
          ",\n \"columns\": ", nlohmann::json(kColumns).dump(), ",\n \"tiles\": [");
  for (size_t i = 0; i < tiles.size(); ++i) {
    const TunedTile& t = tiles[i];
    text += cat(i > 0 ? ",\n  [" : "\n  [", t.of.bits, ", ", t.of.group_size, ", ", t.of.num_x_rows, ", ",
                t.of.row_bricks, ", ", t.of.column_bricks, ", ", t.tile.row_bricks, ", ", t.tile.warps, ", ",
                fixed(t.us, 2), ", ", fixed(t.us_by_rule, 2), "]");
  }
  return text + "]}\n";
}

kernels::DecodeTile DecodeTiles::find(const kernels::PackedShape& shape, int64_t num_x_rows, bool gated) const {
  const TileCase wanted = tile_case(shape, num_x_rows);
  const TunedTile* nearest = nullptr;
  double least = std::log(1.125);
  for (const TunedTile& line : tiles) {
    if (line.of.bits != wanted.bits || line.of.group_size != wanted.group_size ||
        line.of.num_x_rows != wanted.num_x_rows)
      continue;
    if (!kernels::has_decode_tile(shape, num_x_rows, gated, line.tile)) continue;
    if (const double apart = distance(line.of, wanted); apart <= least) {
      nearest = &line;
      least = apart;
    }
  }
  return nearest ? nearest->tile : kernels::DecodeTile{};
}

kernels::DecodeTile tuned_tile(c10::Device device, const kernels::PackedShape& shape, int64_t num_x_rows, bool gated) {
  thread_local std::map<int, const DecodeTiles*> of_devices;
  const auto [found, is_new] = of_devices.try_emplace(device.index());
  if (is_new) found->second = tiles_for(device_name(device));
  return found->second ? found->second->find(shape, num_x_rows, gated) : kernels::DecodeTile{};
}

}  // namespace satin::ops
