#include "report/run_data.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "core/file.h"
#include "report/metrics.h"
#include "report/progress.h"

namespace satin::report {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

void flatten(const YAML::Node& node, const std::string& key, std::map<std::string, std::string>& values) {
  const auto inner = [&](const std::string& name) { return key.empty() ? name : key + "." + name; };
  if (node.IsMap() && node.size() > 0) {
    for (const auto& item : node) flatten(item.second, inner(item.first.as<std::string>()), values);
  } else if (node.IsSequence() && node.size() > 0) {
    for (size_t i = 0; i < node.size(); ++i) flatten(node[i], inner(std::to_string(i)), values);
  } else {
    values[key] = node.IsScalar() ? node.Scalar() : node.IsMap() ? "{}" : node.IsSequence() ? "[]" : "";
  }
}

std::string cell_text(const std::string& column, const ordered_json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer() && column.ends_with("bytes")) return bytes_text(value.get<int64_t>());
  if (value.is_number()) return number_text(value.get<double>());
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

Table table_of(const fs::path& path, const std::string& title) {
  const ordered_json document = ordered_json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  const auto is_rows = [](const ordered_json& value) {
    return value.is_array() && !value.empty() &&
           std::ranges::all_of(value, [](const auto& row) { return row.is_object(); });
  };
  Table table{title, {}, {}};
  ordered_json rows = is_rows(document) ? document : ordered_json();
  if (document.is_object())
    for (const auto& [key, value] : document.items())
      if (rows.is_null() && is_rows(value)) rows = value;
  if (document.is_discarded())
    throw UserError(cat("cannot parse ", path.string(), ": expected JSON. Remove or rewrite the file"));
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

void read_curves(const fs::path& path, RunData& run) {
  std::map<std::string, std::map<std::string, double>> last_evaluation;
  std::vector<std::string> texts;
  for (const ordered_json& entry : read_metrics(path)) {
    for (const auto& [name, value] : numbers_of(entry)) {
      Curve& curve = run.curves[name];
      if (curve.steps.empty()) run.metrics.push_back(name);
      curve.steps.push_back(entry["step"].get<int64_t>());
      curve.values.push_back(value);
    }
    if (!entry.contains("eval") || !entry["eval"].is_object()) continue;
    for (const auto& [text, result] : entry["eval"].items()) {
      if (!last_evaluation.contains(text)) texts.push_back(text);
      last_evaluation[text].clear();
      last_evaluation[text]["step"] = static_cast<double>(entry["step"].get<int64_t>());
      for (const auto& [metric, value] : numbers_of(result)) {
        last_evaluation[text][metric] = value;
        if (std::ranges::find(run.evaluation.columns, metric) == run.evaluation.columns.end())
          run.evaluation.columns.push_back(metric);
      }
    }
  }
  std::vector<std::string>& columns = run.evaluation.columns;
  if (!texts.empty()) columns.insert(columns.begin(), {"text", "step"});
  for (const std::string& text : texts) {
    std::vector<std::string> cells = {text};
    for (size_t i = 1; i < columns.size(); ++i) {
      const auto found = last_evaluation[text].find(columns[i]);
      cells.push_back(found == last_evaluation[text].end() ? "" : number_text(found->second));
    }
    run.evaluation.rows.push_back(std::move(cells));
  }
}

}  // namespace

std::string number_text(double value) {
  char text[64];
  const bool whole = value == std::floor(value) || std::abs(value) >= 1e5;
  std::snprintf(text, sizeof text, whole && std::abs(value) < 1e15 ? "%.0f" : "%.5g", value);
  return text;
}

RunData read_run(const fs::path& directory) {
  if (!fs::is_directory(directory))
    throw UserError(cat("expected a run directory, found no such folder: ", directory.string()));
  RunData run;
  run.name = fs::weakly_canonical(directory).filename().string();
  bool found = false;
  const auto with = [&](const char* file, const auto& read) {
    if (!fs::exists(directory / file)) return;
    found = true;
    read(directory / file);
  };
  with("config.yaml", [&](const fs::path& path) {
    run.config_text = read_file(path);
    try {
      flatten(YAML::Load(run.config_text), "", run.config);
    } catch (const YAML::Exception& error) {
      throw UserError(cat(path.string(), ":", error.mark.line + 1, ": ", error.msg));
    }
  });
  with("metrics.jsonl", [&](const fs::path& path) { read_curves(path, run); });
  with("summary.json", [&](const fs::path& path) { run.tables.push_back(table_of(path, "Summary")); });
  with("quantization.json", [&](const fs::path& path) { run.tables.push_back(table_of(path, "Quantization")); });
  if (!found)
    throw UserError(cat(directory.string(),
                        " is not a run directory: expected config.yaml, metrics.jsonl, summary.json or "
                        "quantization.json in it (train.output_dir of a config names one)"));
  return run;
}

}  // namespace satin::report
