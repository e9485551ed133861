// Several runs in one table: what they share and what differs.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "report/chart.h"
#include "report/run_data.h"

namespace satin::report {

using Runs = std::vector<RunData>;  ///< each with a name of its own

std::vector<std::string> names_of(const Runs& runs);

/// A table of the keys whose values differ between the named columns, in `values` one map a column; a value that is
/// missing is shown as (absent). "" when nothing differs.
std::string differences_html(const std::vector<std::string>& names,
                             const std::vector<std::map<std::string, std::string>>& values);

/// The results of one task on one text.
struct TextResults {
  std::string text;
  std::vector<std::pair<int, const EvalResult*>> runs;  ///< number of the run, what it found
};
/// By text, in the order in which the runs have them. Refers to `runs`.
std::vector<TextResults> results_of(const Runs& runs, const std::string& task);

/// beside() of `make(result, "student" or "teacher")` of every run; a curve without points is absent.
std::vector<ChartCurve> model_curves(const Runs& runs, const TextResults& results,
                                     const std::function<ChartCurve(const EvalResult&, const std::string&)>& make);

/// What stands at `pointer`: {"student"} and, with a teacher, "teacher", "ratio", "excess"; each may have an interval
/// ("student_ci95": [low, high]), as csrc/eval/comparison.h writes them.
struct ComparisonRow {
  std::string pointer, label;
};
/// Student, teacher, ratio and excess of each run side by side; rows that no run has are left out.
std::string comparison_html(const Runs& runs, const TextResults& results, const std::vector<ComparisonRow>& rows);

/// How the numbers were computed; and, where the runs' protocols differ, a warning with the differences.
std::string protocol_html(const Runs& runs, const TextResults& results);

}  // namespace satin::report
