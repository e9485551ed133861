#include "train/quantization_table.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <regex>

#include "core/error.h"

namespace satin::train {
namespace {

int64_t num_weights(const quant::TableRow& row) {
  int64_t count = 1;
  for (int64_t size : row.shape) count *= size;
  return count;
}

std::string shape_text(const quant::TableRow& row) {
  std::string text = "[";
  for (size_t i = 0; i < row.shape.size(); ++i) text += cat(i ? ", " : "", row.shape[i]);
  return text + "]";
}

}  // namespace

std::string quantization_text(const std::vector<quant::TableRow>& table) {
  // "model.layers.7.mlp.up_proj" -> "model.layers.*.mlp.up_proj", where everything else of the line is equal.
  struct Line {
    quant::TableRow row;
    std::string name;
    int64_t num_tensors = 0;
  };
  static const std::regex kLayer(R"(\.layers\.\d+\.)");
  std::vector<Line> lines;
  for (const auto& row : table) {
    const std::string name = std::regex_replace(row.name, kLayer, ".layers.*.");
    auto same = std::find_if(lines.begin(), lines.end(), [&](const Line& line) {
      return line.name == name && line.row.shape == row.shape && line.row.method == row.method &&
             line.row.bits == row.bits && line.row.group_size == row.group_size && line.row.columns == row.columns;
    });
    if (same == lines.end()) same = lines.insert(lines.end(), {row, name, 0});
    ++same->num_tensors;
  }
  std::string text = "quantization\n";
  char buffer[256];
  std::snprintf(buffer, sizeof buffer, "  %-46s %6s %-16s %-18s %5s %6s %9s\n", "tensor", "count", "shape", "method",
                "bits", "group", "effective");
  text += buffer;
  double bits = 0;
  int64_t quantized = 0, total = 0;
  for (const auto& line : lines) {
    const bool full = line.row.method == "none";
    std::snprintf(buffer, sizeof buffer, "  %-46s %6ld %-16s %-18s %5s %6s %9.3f", line.name.c_str(), line.num_tensors,
                  shape_text(line.row).c_str(), full ? "full precision" : line.row.method.c_str(),
                  full ? "16" : fixed(line.row.bits, line.row.bits == static_cast<int>(line.row.bits) ? 0 : 2).c_str(),
                  full                       ? ""
                  : line.row.group_size < 0  ? "row"
                  : line.row.group_size == 0 ? "tensor"
                                             : std::to_string(line.row.group_size).c_str(),
                  line.row.effective_bits);
    text += buffer;
    const std::string& note = full ? line.row.reason : line.row.columns;
    text += (note.empty() ? "" : "  " + note) + "\n";
    const int64_t count = num_weights(line.row) * line.num_tensors;
    total += count;
    if (full) continue;
    quantized += count;
    bits += line.row.effective_bits * static_cast<double>(count);
  }
  text +=
      cat("  quantized: ", quantized, " of ", total, " parameters (",
          fixed(100.0 * static_cast<double>(quantized) / static_cast<double>(std::max<int64_t>(total, 1)), 1), "%)");
  if (quantized)
    text += cat(", ", fixed(bits / static_cast<double>(quantized), 3), " effective bits with scales and zero points");
  return text;
}

nlohmann::json quantization_json(const std::vector<quant::TableRow>& table) {
  auto tensors = nlohmann::json::array();
  for (const auto& row : table) {
    tensors.push_back({{"name", row.name},
                       {"shape", row.shape},
                       {"method", row.method},
                       {"bits", row.bits},
                       {"group_size", row.group_size},
                       {"effective_bits", row.effective_bits},
                       {"reason", row.reason}});
    if (!row.columns.empty()) tensors.back()["columns"] = row.columns;
  }
  return {{"tensors", tensors}};
}

}  // namespace satin::train
