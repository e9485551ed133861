#include "report/eval_results.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.h"
#include "core/file.h"

namespace satin::report {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

[[noreturn]] void refuse_file(const fs::path& path, const std::string& found) {
  throw UserError(cat(path.string(), ": expected what satin eval --json writes (results by text and task), found ",
                      found, ". Write it anew, or move it out of ", path.parent_path().string()));
}

std::string kind_of(const ordered_json& value) {
  return value.is_array() ? cat("an array of ", value.size()) : cat("a JSON ", value.type_name());
}

/// {"task", "text", ...}, or such objects by text and task.
void read_file_into(const fs::path& path, std::vector<EvalResult>& results) {
  ordered_json document = ordered_json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) refuse_file(path, "no valid JSON");
  if (!document.is_object()) refuse_file(path, kind_of(document));
  if (document.contains("task") && document["task"].is_string() && document.contains("text") &&
      document["text"].is_string()) {
    const std::string text = document["text"], task = document["task"];
    results.push_back({text, task, path, std::move(document)});
    return;
  }
  for (const auto& [text, tasks] : document.items()) {
    if (!tasks.is_object()) refuse_file(path, cat(kind_of(tasks), " at /", text));
    for (const auto& [task, result] : tasks.items()) {
      if (!result.is_object()) refuse_file(path, cat(kind_of(result), " at /", text, "/", task));
      results.push_back({text, task, path, result});
    }
  }
}

}  // namespace

const ordered_json* EvalResult::find(const std::string& pointer) const {
  const ordered_json::json_pointer at(pointer);
  return json.contains(at) && !json.at(at).is_null() ? &json.at(at) : nullptr;
}

void EvalResult::refuse(const std::string& pointer, const std::string& expected) const {
  throw UserError(cat(file.string(), ": expected ", expected, " at ", pointer, " of ", task, " on ", text, ", found ",
                      kind_of(json.at(ordered_json::json_pointer(pointer))), ". Write the file anew with satin eval"));
}

std::optional<double> EvalResult::number(const std::string& pointer) const {
  const ordered_json* value = find(pointer);
  if (!value) return {};
  if (!value->is_number()) refuse(pointer, "a number");
  return value->get<double>();
}

std::vector<double> EvalResult::numbers(const std::string& pointer, std::optional<size_t> length) const {
  const ordered_json* values = find(pointer);
  if (!values) return {};
  if (!values->is_array()) refuse(pointer, "an array of numbers");
  if (length && values->size() != *length) refuse(pointer, cat("an array of ", *length, " numbers"));
  std::vector<double> numbers;
  for (size_t i = 0; i < values->size(); ++i)
    numbers.push_back(number(cat(pointer, "/", i)).value_or(std::numeric_limits<double>::quiet_NaN()));
  return numbers;
}

size_t EvalResult::length(const std::string& pointer) const {
  const ordered_json* values = find(pointer);
  if (!values) return 0;
  if (!values->is_array()) refuse(pointer, "an array");
  return values->size();
}

std::vector<EvalResult> read_eval_results(const fs::path& folder) {
  std::vector<EvalResult> results;
  if (!fs::is_directory(folder)) return results;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".json") files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& path : files) read_file_into(path, results);

  std::map<std::pair<std::string, std::string>, int> count;
  for (const EvalResult& result : results) ++count[{result.text, result.task}];
  for (EvalResult& result : results)
    if (count[{result.text, result.task}] > 1) result.text += cat(" (", result.file.stem().string(), ")");
  return results;
}

}  // namespace satin::report
