// What `satin eval --json` wrote about a run: every RUN/eval/*.json.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace satin::report {

/// One task on one text. Errors of the readers: UserError naming the file and the place in it.
struct EvalResult {
  std::string text;  ///< name of the text; with the file's when one run has several results of the task on it
  std::string task;  ///< perplexity, choice, annotations, smoothness, robustness
  std::filesystem::path file;
  nlohmann::ordered_json json;

  /// The number at a JSON pointer; nothing where it is absent or null.
  std::optional<double> number(const std::string& pointer) const;
  /// The array of numbers at a JSON pointer, null as NaN; empty where it is absent. An array of another length than
  /// `length` is an error, where that is given.
  std::vector<double> numbers(const std::string& pointer, std::optional<size_t> length = {}) const;
  /// Length of the array at a JSON pointer; 0 where it is absent.
  size_t length(const std::string& pointer) const;

 private:
  const nlohmann::ordered_json* find(const std::string& pointer) const;
  [[noreturn]] void refuse(const std::string& pointer, const std::string& expected) const;
};

/// The results of all files of `folder` that end in .json, in the order of their names; none when there is no folder.
/// Errors: UserError for a file that is not such a result.
std::vector<EvalResult> read_eval_results(const std::filesystem::path& folder);

}  // namespace satin::report
