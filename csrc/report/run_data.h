// What a run directory tells, read as far as it is there.
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace satin::report {

/// One metric over the steps.
struct Curve {
  std::vector<int64_t> steps;
  std::vector<double> values;
};

/// Rows of objects: any JSON array of objects, or an object that has one ("rows", "tensors", ...).
struct Table {
  std::string title;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};

struct RunData {
  std::string name;
  std::string config_text;                    ///< config.yaml as it is
  std::map<std::string, std::string> config;  ///< dotted key -> value
  std::vector<std::string> metrics;           ///< names in the order of their first entry
  std::map<std::string, Curve> curves;        ///< by metric; evaluations are "eval/<text>/<metric>"
  Table evaluation;                           ///< the last evaluation of each text
  std::vector<Table> tables;                  ///< of quantization.json and summary.json
};

/// Reads config.yaml, metrics.jsonl, quantization.json and summary.json. Errors: UserError when `directory` has none of
/// them, or when one that is there cannot be understood (a metrics line that a kill cut short is left out).
RunData read_run(const std::filesystem::path& directory);

/// A number for a table: 5 significant digits, or all of a whole part.
std::string number_text(double value);

}  // namespace satin::report
