// Student beside teacher: how a number is written once there are two of it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace satin::eval {

/// {"student"} or, with a teacher, {"student", "teacher", "excess": student - teacher, "ratio": student / teacher}.
/// Equal numbers have the ratio 1, zeros too; a number that is not finite is null.
nlohmann::json compare(double student, std::optional<double> teacher);

/// A line of a table: what stands at `pointer` (a JSON pointer to what compare() made), called `label`, explained.
struct TableRow {
  std::string pointer, label, explanation;
};
/// Aligned text: label, student, teacher, ratio, excess, explanation. Rows that `result` lacks are left out.
std::string comparison_table(const nlohmann::json& result, const std::vector<TableRow>& rows);

}  // namespace satin::eval
