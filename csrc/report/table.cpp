#include "report/table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "report/progress.h"

namespace satin::report {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

std::string cell_text(const std::string& column, const ordered_json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer() && column.ends_with("bytes")) return bytes_text(value.get<int64_t>());
  if (value.is_number()) return number_text(value.get<double>());
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

bool is_rows(const ordered_json& value) {
  return value.is_array() && !value.empty() &&
         std::ranges::all_of(value, [](const auto& row) { return row.is_object(); });
}

}  // namespace

Table read_table(const fs::path& path, const std::string& title) {
  const ordered_json document = ordered_json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded())
    throw UserError(cat("cannot parse ", path.string(), ": expected JSON. Remove or rewrite the file"));
  ordered_json rows = is_rows(document) ? document : ordered_json();
  if (document.is_object())
    for (const auto& [key, value] : document.items())
      if (rows.is_null() && is_rows(value)) rows = value;
  Table table{title, {}, {}};
  for (const ordered_json& row : rows)
    for (const auto& [key, value] : row.items())
      if (std::ranges::find(table.columns, key) == table.columns.end()) table.columns.push_back(key);
  for (const ordered_json& row : rows) {
    std::vector<std::string> cells;
    for (const std::string& column : table.columns)
      cells.push_back(row.contains(column) ? cell_text(column, row[column]) : "");
    table.rows.push_back(std::move(cells));
  }
  return table;
}

std::string number_text(double value) {
  char text[64];
  const bool whole = value == std::floor(value) || std::abs(value) >= 1e5;
  std::snprintf(text, sizeof text, whole && std::abs(value) < 1e15 ? "%.0f" : "%.5g", value);
  return text;
}

}  // namespace satin::report
