#include "eval/comparison.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace satin::eval {
namespace {

nlohmann::json finite(double value) { return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(); }

std::string cell(const nlohmann::json& numbers, const char* key) {
  char text[32] = "-";
  if (numbers.contains(key) && numbers[key].is_number())
    std::snprintf(text, sizeof text, "%.4g", numbers[key].get<double>());
  return text;
}

std::string line(const std::string& label, const std::string& student, const std::string& teacher,
                 const std::string& ratio, const std::string& excess, const std::string& explanation) {
  char text[256];
  std::snprintf(text, sizeof text, "  %-24s %10s %10s %8s %10s  ", label.c_str(), student.c_str(), teacher.c_str(),
                ratio.c_str(), excess.c_str());
  return text + explanation + "\n";
}

}  // namespace

nlohmann::json compare(double student, std::optional<double> teacher) {
  nlohmann::json numbers = {{"student", finite(student)}};
  if (teacher) {
    numbers["teacher"] = finite(*teacher);
    numbers["excess"] = finite(student - *teacher);
    numbers["ratio"] = student == *teacher ? nlohmann::json(1.0) : finite(student / *teacher);
  }
  return numbers;
}

std::string comparison_table(const nlohmann::json& result, const std::vector<TableRow>& rows) {
  std::string table = line("", "student", "teacher", "ratio", "excess", "");
  for (const TableRow& row : rows) {
    const nlohmann::json::json_pointer pointer(row.pointer);
    if (!result.contains(pointer)) continue;
    const nlohmann::json& numbers = result.at(pointer);
    table += line(row.label, cell(numbers, "student"), cell(numbers, "teacher"), cell(numbers, "ratio"),
                  cell(numbers, "excess"), row.explanation);
  }
  return table;
}

}  // namespace satin::eval
