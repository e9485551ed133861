#include "report/chart.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "report/assets.h"

namespace satin::report {
using nlohmann::ordered_json;
namespace {

std::string id_of(size_t grid) { return cat("charts-", grid); }

ordered_json to_json(const Chart& chart) {
  ordered_json curves = ordered_json::array();
  for (const ChartCurve& curve : chart.curves) {
    curves.push_back(
        {{"name", curve.name}, {"colour", curve.colour}, {"teacher", curve.teacher}, {"x", curve.x}, {"y", curve.y}});
    if (!curve.low.empty()) curves.back().update({{"low", curve.low}, {"high", curve.high}});
  }
  return {{"title", chart.title},       {"x_label", chart.x_label},       {"style", chart.style},
          {"x_format", chart.x_format}, {"categories", chart.categories}, {"role", chart.role},
          {"curves", std::move(curves)}};
}

}  // namespace

std::vector<ChartCurve> beside(const std::vector<CurvePair>& pairs) {
  std::vector<ChartCurve> curves;
  bool one_teacher = true;
  const CurvePair* first = nullptr;
  for (const CurvePair& pair : pairs) {
    curves.push_back(pair.student);
    curves.back().name = pair.name;
    curves.back().colour = pair.run;
    if (pair.teacher.x.empty()) continue;
    if (!first) first = &pair;
    one_teacher &= pair.teacher.x == first->teacher.x && pair.teacher.y == first->teacher.y;
  }
  for (const CurvePair& pair : pairs) {
    if (pair.teacher.x.empty() || (one_teacher && &pair != first)) continue;
    curves.push_back(pair.teacher);
    curves.back().name = one_teacher ? "teacher" : "teacher of " + pair.name;
    curves.back().colour = one_teacher ? kTeacherColour : pair.run;
    curves.back().teacher = true;
  }
  return curves;
}

std::string Charts::place(std::vector<Chart> charts) {
  std::erase_if(charts, [](const Chart& chart) { return chart.curves.empty(); });
  if (charts.empty() || assets::kDygraphJs.empty()) return "";
  grids_.push_back(std::move(charts));
  return cat("<div class=\"charts\" id=\"", id_of(grids_.size() - 1), "\"></div>\n");
}

std::string Charts::json(const std::vector<std::string>& run_names) const {
  ordered_json grids = ordered_json::array();
  for (size_t i = 0; i < grids_.size(); ++i) {
    ordered_json charts = ordered_json::array();
    for (const Chart& chart : grids_[i]) charts.push_back(to_json(chart));
    grids.push_back({{"id", id_of(i)}, {"charts", std::move(charts)}});
  }
  std::string text = ordered_json{{"runs", run_names}, {"grids", std::move(grids)}}.dump(
      -1, ' ', /*ensure_ascii=*/true, ordered_json::error_handler_t::replace);
  // Inside a script element only "<" could end the data.
  for (size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at)) text.replace(at, 1, "\\u003c");
  return text;
}

}  // namespace satin::report
