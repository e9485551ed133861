#include "report/run_data.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "core/file.h"
#include "report/metrics.h"

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

/// A process a row: means over the entries but the first, whose step starts the program up.
void read_step_time(const std::vector<ordered_json>& entries, RunData& run) {
  const std::pair<const char*, const char*> kinds[] = {{"compute_ms", "computing"},
                                                       {"communication_ms", "waiting for other processes"},
                                                       {"data_ms", "waiting for data"}};
  std::map<std::string, std::vector<double>> sums;
  int64_t count = -1;
  for (const ordered_json& entry : entries) {
    if (!entry.contains("ranks") || !entry["ranks"].is_object() || ++count == 0) continue;
    for (const auto& [kind, title] : kinds) {
      if (!entry["ranks"].contains(kind) || !entry["ranks"][kind].is_array()) return;
      std::vector<double>& sum = sums[kind];
      sum.resize(std::max(sum.size(), entry["ranks"][kind].size()));
      for (size_t rank = 0; rank < entry["ranks"][kind].size(); ++rank)
        if (const ordered_json& value = entry["ranks"][kind][rank]; value.is_number()) sum[rank] += value.get<double>();
    }
  }
  if (count < 1) return;
  run.step_time.columns = {"rank"};
  for (const auto& [kind, title] : kinds) {
    run.step_time.columns.emplace_back(title);
    run.step_time.rows.resize(std::max(run.step_time.rows.size(), sums[kind].size()));
    for (size_t rank = 0; rank < sums[kind].size(); ++rank) {
      if (run.step_time.rows[rank].empty()) run.step_time.rows[rank] = {std::to_string(rank)};
      run.step_time.rows[rank].push_back(number_text(sums[kind][rank] / static_cast<double>(count)));
    }
  }
}

void read_curves(const fs::path& path, RunData& run) {
  std::map<std::string, std::map<std::string, double>> last_evaluation;
  std::vector<std::string> texts;
  const std::vector<ordered_json> entries = read_metrics(path);
  read_step_time(entries, run);
  for (const ordered_json& entry : entries) {
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
      for (const auto& [name, value] : numbers_of(result)) {
        const std::string column = name.starts_with("protocol/") ? name.substr(9) : name;
        last_evaluation[text][column] = value;
        if (std::ranges::find(run.evaluation.columns, column) == run.evaluation.columns.end())
          run.evaluation.columns.push_back(column);
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

/// The last entry: a row a layer.
void read_quantizers(const fs::path& path, RunData& run) {
  const std::vector<ordered_json> entries = read_metrics(path);
  if (entries.empty()) return;
  const ordered_json& last = entries.back();
  const auto refuse = [&](const ordered_json& found) {
    throw UserError(cat(path.string(), ": expected \"layers\": [{\"name\", \"clipped\", \"changed\", \"scale_drift\", ",
                        "\"levels\"}, ...] in the last line, found ", found.dump().substr(0, 80)));
  };
  if (!last.contains("layers") || !last["layers"].is_array()) refuse(last);
  run.quantizers_step = last["step"].get<int64_t>();
  const auto share = [](const ordered_json& value) {  // what was not finite is null
    return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  };
  for (const ordered_json& row : last["layers"]) {
    try {
      QuantizerHealth health{row.at("name").get<std::string>(),
                             share(row.at("clipped")),
                             share(row.at("changed")),
                             share(row.at("scale_drift")),
                             {}};
      for (const ordered_json& level : row.at("levels")) health.levels.push_back(share(level));
      run.quantizers.push_back(std::move(health));
    } catch (const ordered_json::exception&) {
      refuse(row);
    }
  }
}

}  // namespace

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
  with("quantizers.jsonl", [&](const fs::path& path) { read_quantizers(path, run); });
  with("summary.json", [&](const fs::path& path) { run.tables.push_back(read_table(path, "Summary")); });
  with("quantization.json", [&](const fs::path& path) { run.tables.push_back(read_table(path, "Quantization")); });
  with("allocation.json", [&](const fs::path& path) { run.allocation = read_allocation(path); });
  run.results = read_eval_results(directory / "eval");
  if (!found && run.results.empty())
    throw UserError(cat(directory.string(),
                        " is not a run directory: expected config.yaml, metrics.jsonl, quantizers.jsonl, "
                        "summary.json, quantization.json, allocation.json or eval/*.json in it (train.output_dir of a "
                        "config names one)"));
  return run;
}

}  // namespace satin::report
