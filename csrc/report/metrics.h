// metrics.jsonl of a run directory: one JSON object a line, in the order of steps.
//
// An entry of training has "step" (steps completed, from 1) and plain numbers: tokens, loss and its parts, lr,
// grad_norm, tokens_per_second, mfu, memory (bytes). An entry of evaluation has "step" and "eval": {"<text>":
// {"perplexity": ..., ...}}; one of the quantizers' health has "step" and "quantizers": {"clipped", "changed",
// "scale_drift"}. Readers take every other number as a further part of the loss and show it. NaN and
// infinity are written as null.
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace satin::report {

class MetricsLog {
 public:
  /// Opens `path` for appending, having removed the entries after `last_step` (what an interrupted run wrote beyond its
  /// checkpoint) and a half-written last line. -1 starts anew. Errors: UserError naming file and line.
  explicit MetricsLog(std::filesystem::path path, int64_t last_step = -1);

  /// Writes one line and hands it to the system at once. Errors: UserError when the file cannot be written;
  /// InternalError for an entry without an integer "step".
  void append(const nlohmann::ordered_json& entry);

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

/// All entries. A last line that was cut short (by a kill) is left out; another bad line is a UserError.
std::vector<nlohmann::ordered_json> read_metrics(const std::filesystem::path& path);

/// An entry's numbers by name, those of inner objects as "outer/inner"; without "step". Nulls and texts are left out.
std::vector<std::pair<std::string, double>> numbers_of(const nlohmann::ordered_json& entry);

}  // namespace satin::report
