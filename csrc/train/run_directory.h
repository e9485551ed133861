// The folder of one run: what is where, and when it may be written.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace satin::train {

namespace fs = std::filesystem;

/// How `--resume` reads: never | auto | the directory of a checkpoint.
struct Resume {
  bool enabled = false;
  std::optional<fs::path> checkpoint;  ///< set by `--resume DIR`
  static Resume parse(const std::string& text);
};

/// config.yaml, metrics.jsonl, quantizers.jsonl, events.*, checkpoints/, export/<format>/, report.html, log.txt; with
/// --profile also profile.txt and trace.json; of satin quantize layers.jsonl and, until it has finished, ptq/
class RunDirectory {
 public:
  /// Creates the folder. One that holds more than the log and cache of a start that failed is refused (UserError)
  /// unless `resume` is enabled.
  RunDirectory(const fs::path& path, const Resume& resume);
  /// The same errors, as far as they can be foreseen, and nothing is created.
  static void check(const fs::path& path, const Resume& resume);

  const fs::path& path() const { return path_; }
  fs::path metrics() const { return path_ / "metrics.jsonl"; }
  fs::path config() const { return path_ / "config.yaml"; }
  fs::path log() const { return path_ / "log.txt"; }
  fs::path quantization_table() const { return path_ / "quantization.json"; }
  fs::path quantizer_health() const { return path_ / "quantizers.jsonl"; }
  fs::path layers() const { return path_ / "layers.jsonl"; }
  fs::path unfinished_blocks() const { return path_ / "ptq"; }
  fs::path evaluation() const { return path_ / "evaluation.json"; }
  fs::path profile() const { return path_ / "profile.txt"; }
  fs::path trace() const { return path_ / "trace.json"; }
  fs::path report() const { return path_ / "report.html"; }
  fs::path tokens() const { return path_ / "cache"; }
  fs::path exported(const std::string& format) const { return path_ / "export" / format; }

 private:
  fs::path path_;
};

}  // namespace satin::train
