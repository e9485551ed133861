// What was logged while training: curves, last values, the quantizers.
#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "report/markup.h"
#include "report/metric_charts.h"
#include "report/progress.h"
#include "report/sections.h"

namespace satin::report {
namespace {

std::string last_values(const Runs& runs) {
  std::vector<std::string> columns = {"metric"};
  std::vector<std::vector<std::string>> rows = {{"step"}};
  for (const RunData& run : runs) {
    columns.push_back(run.name);
    int64_t last_step = 0;
    for (const auto& [metric, curve] : run.curves) last_step = std::max(last_step, curve.steps.back());
    rows[0].push_back(run.curves.empty() ? "" : std::to_string(last_step));
  }
  for (const std::string& metric : metrics_of(runs)) {
    const MetricKind kind = kind_of(metric);
    if (kind.group == MetricGroup::kEvaluation || kind.group == MetricGroup::kQuantizers) continue;  // own tables
    std::vector<std::string> row = {metric == "memory" ? "memory" : kind.title};
    for (const RunData& run : runs) {
      const auto curve = run.curves.find(metric);
      if (curve == run.curves.end())
        row.push_back("");
      else if (const double last = curve->second.values.back(); metric.starts_with("memory") && std::abs(last) < 1e18)
        row.push_back(bytes_text(std::llround(last)));
      else
        row.push_back(number_text(last));
    }
    rows.push_back(std::move(row));
  }
  return rows.size() == 1 ? "" : heading("Last values") + table_html(columns, rows);
}

std::string percent(double share) { return std::isfinite(share) ? number_text(std::round(share * 1e4) / 100) : ""; }

std::string layer_table(const RunData& run) {
  std::vector<std::vector<std::string>> rows;
  for (const QuantizerHealth& layer : run.quantizers) {
    std::string levels;
    for (double level : layer.levels) levels += (levels.empty() ? "" : "  ") + fixed(100 * level, 0);
    rows.push_back(
        {layer.name, percent(layer.clipped), percent(layer.changed), percent(layer.scale_drift), std::move(levels)});
  }
  return table_html({"layer", "outside the grid, %", "codes changed, %", "change of scales, %",
                     "weights on each level, %, lowest first"},
                    rows);
}

}  // namespace

std::string training_section(const Runs& runs, Charts& charts) {
  std::string html;
  using enum MetricGroup;
  for (const auto& [group, title] : {std::pair{kLoss, "Loss"}, std::pair{kEvaluation, "Evaluation"},
                                     std::pair{kOptimizer, "Optimizer"}, std::pair{kMachine, "Machine"}})
    if (const std::string grid = charts.place(metric_charts(runs, group)); !grid.empty())
      html += subheading(title) + grid;
  if (!html.empty()) html = heading("Training") + "<div id=\"controls\"></div>\n" + html;
  html += last_values(runs);
  for (const RunData& run : runs)
    if (!run.step_time.rows.empty())
      html += heading("Where the time of a step goes" + (runs.size() > 1 ? ": " + run.name : "") + ", ms") +
              table_html(run.step_time.columns, run.step_time.rows);
  return html;
}

std::string quantizer_section(const Runs& runs, Charts& charts) {
  std::string html = charts.place(metric_charts(runs, MetricGroup::kQuantizers));
  for (const RunData& run : runs)
    if (!run.quantizers.empty())
      html += details(cat(runs.size() > 1 ? run.name + ": " : "", "each layer at step ", run.quantizers_step, " (",
                          run.quantizers.size(), " layers)"),
                      layer_table(run), run.quantizers.size() <= 12);
  return html.empty() ? "" : heading("Quantizers") + html;
}

}  // namespace satin::report
