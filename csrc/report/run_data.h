// What a run directory tells, read as far as it is there.
#pragma once
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "report/allocation.h"
#include "report/eval_results.h"
#include "report/table.h"

namespace satin::report {

/// One metric over the steps.
struct Curve {
  std::vector<int64_t> steps;
  std::vector<double> values;
};

/// A layer's quantizer (csrc/quant/health.h says what the numbers are); all are shares.
struct QuantizerHealth {
  std::string name;
  double clipped, changed, scale_drift;
  std::vector<double> levels;  ///< of the weights on each level, lowest first; empty when there are too many
};

struct RunData {
  std::string name;
  std::string config_text;                    ///< config.yaml as it is
  std::map<std::string, std::string> config;  ///< dotted key -> value
  std::vector<std::string> metrics;           ///< names in the order of their first entry
  std::map<std::string, Curve> curves;        ///< by metric; evaluations are "eval/<text>/<metric>"
  Table evaluation;                           ///< the last evaluation of each text
  Table step_time;                            ///< ms of a step by process, but for the first entry; several processes
  std::vector<Table> tables;                  ///< of quantization.json and summary.json
  std::vector<QuantizerHealth> quantizers;    ///< the last entry of quantizers.jsonl
  int64_t quantizers_step = 0;                ///< ... and its step
  std::vector<EvalResult> results;            ///< of eval/*.json
  AllocationData allocation;                  ///< of allocation.json
};

/// Reads config.yaml, metrics.jsonl, quantizers.jsonl, quantization.json, summary.json, allocation.json and
/// eval/*.json. Errors: UserError when `directory` has none of them, or when one that is there cannot be understood (a
/// line of metrics or quantizers that a kill cut short is left out).
RunData read_run(const std::filesystem::path& directory);

}  // namespace satin::report
