#include "report/metrics.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"

namespace satin::report {
using nlohmann::ordered_json;
namespace {

bool has_step(const ordered_json& entry) {
  return entry.is_object() && entry.contains("step") && entry["step"].is_number_integer();
}

void collect(const ordered_json& object, const std::string& prefix,
             std::vector<std::pair<std::string, double>>& numbers) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_object())
      collect(value, prefix + key + "/", numbers);
    else if (value.is_number() && !(prefix.empty() && key == "step"))
      numbers.emplace_back(prefix + key, value.get<double>());
  }
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path path, int64_t last_step) : path_(std::move(path)) {
  std::string kept;
  if (last_step >= 0 && std::filesystem::exists(path_))
    for (const ordered_json& entry : read_metrics(path_))
      if (entry["step"].get<int64_t>() <= last_step) kept += entry.dump() + "\n";
  write_file_atomically(path_, kept);
  out_.open(path_, std::ios::app | std::ios::binary);
  if (!out_) throw UserError(cat("cannot open ", path_.string(), " for writing"));
}

void MetricsLog::append(const ordered_json& entry) {
  SATIN_CHECK(has_step(entry), "a metrics entry needs an integer step: ", entry.dump());
  out_ << entry.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << '\n' << std::flush;
  if (!out_) throw UserError(cat("cannot write ", path_.string(), ": is the disk full?"));
}

std::vector<ordered_json> read_metrics(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<ordered_json> entries;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    ++line_number;
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;  // cut short: lines are written whole, newline last
    const auto line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    ordered_json entry = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!has_step(entry))
      throw UserError(cat(path.string(), ":", line_number, ": expected a JSON object with an integer \"step\", found ",
                          line.substr(0, 80)));
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::vector<std::pair<std::string, double>> numbers_of(const ordered_json& entry) {
  std::vector<std::pair<std::string, double>> numbers;
  if (entry.is_object()) collect(entry, "", numbers);
  return numbers;
}

}  // namespace satin::report
