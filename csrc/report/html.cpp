#include "report/html.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "report/assets.h"
#include "report/progress.h"
#include "report/run_data.h"

namespace satin::report {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

constexpr size_t kMaxPoints = 5000;  // of a curve; beyond it every k-th is drawn

/// What a metric is, for the headline, the order of the charts and the choice of a scale.
struct MetricKind {
  std::string title;
  int group;  ///< 0 loss, 1 evaluation, 2 optimizer, 3 machine
};

MetricKind kind_of(const std::string& metric) {
  if (metric.starts_with("eval/")) return {metric.substr(5), 1};
  if (metric.starts_with("lr")) return {"learning rate" + (metric == "lr" ? "" : " (" + metric + ")"), 2};
  if (metric.starts_with("grad_norm")) return {"gradient norm" + (metric == "grad_norm" ? "" : " (" + metric + ")"), 2};
  if (metric == "quantizers/scale_drift") return {"quantizers: relative change of scales", 2};
  if (metric.starts_with("quantizers/")) return {"quantizers: share of weights " + metric.substr(11), 2};
  if (metric == "tokens_per_second") return {"tokens per second", 3};
  if (metric == "mfu") return {"MFU (share of the device's peak)", 3};
  if (metric.starts_with("memory")) return {metric == "memory" ? "memory" : metric, 3};
  if (metric == "tokens") return {"tokens", 3};
  if (metric.ends_with("_ms") || metric.ends_with("_s") || metric.ends_with("_bytes")) return {metric, 3};
  return {metric == "loss" ? "loss (total)" : metric, 0};
}

std::string cells(const char* tag, const std::vector<std::string>& texts) {
  std::string html;
  for (const std::string& text : texts) html += cat("<", tag, ">", escape_html(text), "</", tag, ">");
  return html;
}

std::string table_html(const std::vector<std::string>& columns, const std::vector<std::vector<std::string>>& rows) {
  std::string html = "<div class=\"scroll\"><table><thead><tr>" + cells("th", columns) + "</tr></thead><tbody>\n";
  for (const auto& row : rows) html += "<tr>" + cells("td", row) + "</tr>\n";
  return html + "</tbody></table></div>\n";
}

std::string details(const std::string& summary, const std::string& html, bool open) {
  return cat("<details", open ? " open" : "", "><summary>", escape_html(summary), "</summary>\n", html, "</details>\n");
}

std::vector<std::string> names_of(const std::vector<RunData>& runs) {
  std::vector<std::string> names;
  for (const RunData& run : runs) names.push_back(run.name);
  return names;
}

/// Metrics of all runs, by group, else in the order in which the runs wrote them.
std::vector<std::string> metrics_of(const std::vector<RunData>& runs) {
  std::vector<std::string> metrics;
  for (const RunData& run : runs)
    for (const std::string& metric : run.metrics)
      if (std::ranges::find(metrics, metric) == metrics.end()) metrics.push_back(metric);
  std::ranges::stable_sort(metrics, {}, [](const std::string& metric) { return kind_of(metric).group; });
  return metrics;
}

std::string last_values(const std::vector<RunData>& runs) {
  std::vector<std::string> columns = {"metric"};
  std::vector<std::vector<std::string>> rows = {{"step"}};
  for (const RunData& run : runs) {
    columns.push_back(run.name);
    int64_t last_step = 0;
    for (const auto& [metric, curve] : run.curves) last_step = std::max(last_step, curve.steps.back());
    rows[0].push_back(run.curves.empty() ? "" : std::to_string(last_step));
  }
  for (const std::string& metric : metrics_of(runs)) {
    if (kind_of(metric).group == 1) continue;  // has its own table
    std::vector<std::string> row = {kind_of(metric).title};
    for (const RunData& run : runs) {
      const auto curve = run.curves.find(metric);
      if (curve == run.curves.end())
        row.push_back("");
      else if (const double last = curve->second.values.back(); metric.starts_with("memory"))
        row.push_back(bytes_text(std::llround(last)));
      else
        row.push_back(number_text(last));
    }
    rows.push_back(std::move(row));
  }
  return rows.size() == 1 ? "" : "<h2>Last values</h2>\n" + table_html(columns, rows);
}

std::string evaluation(const std::vector<RunData>& runs) {
  std::vector<std::string> columns = {"run"};
  for (const RunData& run : runs)
    for (const std::string& column : run.evaluation.columns)
      if (std::ranges::find(columns, column) == columns.end()) columns.push_back(column);
  std::vector<std::vector<std::string>> rows;
  for (const RunData& run : runs)
    for (const auto& cells_of_run : run.evaluation.rows) {
      std::vector<std::string> row(columns.size());
      row[0] = run.name;
      for (size_t i = 0; i < cells_of_run.size(); ++i)
        row[std::ranges::find(columns, run.evaluation.columns[i]) - columns.begin()] = cells_of_run[i];
      rows.push_back(std::move(row));
    }
  return rows.empty() ? "" : "<h2>Evaluation</h2>\n" + table_html(columns, rows);
}

std::string config_differences(const std::vector<RunData>& runs) {
  if (runs.size() < 2) return "";
  std::set<std::string> keys;
  for (const RunData& run : runs)
    for (const auto& [key, value] : run.config) keys.insert(key);
  std::vector<std::vector<std::string>> rows;
  for (const std::string& key : keys) {
    std::vector<std::string> row = {key};
    std::set<std::string> distinct;
    for (const RunData& run : runs) {
      const auto value = run.config.find(key);
      row.push_back(value == run.config.end() ? "(absent)" : value->second);
      distinct.insert(row.back());
    }
    if (distinct.size() > 1) rows.push_back(std::move(row));
  }
  if (rows.empty()) return "<h2>Configuration</h2>\n<p>The configurations are the same.</p>\n";
  std::vector<std::string> columns = names_of(runs);
  columns.insert(columns.begin(), "key");
  return "<h2>Configuration: what differs</h2>\n" + table_html(columns, rows);
}

/// The curves for report.js: {"runs": [name], "charts": [{title, group, curves: [{run, steps, values}]}]}.
std::string chart_data(const std::vector<RunData>& runs) {
  ordered_json charts = ordered_json::array();
  for (const std::string& metric : metrics_of(runs)) {
    ordered_json curves = ordered_json::array();
    bool has_line = false;
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto found = runs[i].curves.find(metric);
      if (found == runs[i].curves.end()) continue;
      const Curve& curve = found->second;
      const size_t stride = (curve.steps.size() + kMaxPoints - 1) / kMaxPoints;
      ordered_json steps = ordered_json::array(), values = ordered_json::array();
      for (size_t p = 0; p < curve.steps.size(); p += stride) {
        steps.push_back(curve.steps[p]);
        values.push_back(curve.values[p]);
      }
      has_line |= steps.size() > 1;
      curves.push_back({{"run", i}, {"steps", std::move(steps)}, {"values", std::move(values)}});
    }
    const MetricKind kind = kind_of(metric);
    if (has_line && metric != "tokens" && !metric.ends_with("/tokens"))
      charts.push_back({{"title", kind.title}, {"group", kind.group}, {"curves", std::move(curves)}});
  }
  std::string text = ordered_json{{"runs", names_of(runs)}, {"charts", std::move(charts)}}.dump(
      -1, ' ', /*ensure_ascii=*/true, ordered_json::error_handler_t::replace);
  // Inside a script element only "<" could end the data.
  for (size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at)) text.replace(at, 1, "\\u003c");
  return text;
}

/// A name a run; runs of the same name get their number.
void make_names_unique(std::vector<RunData>& runs) {
  std::map<std::string, int> count, seen;
  for (const RunData& run : runs) ++count[run.name];
  for (RunData& run : runs)
    if (count[run.name] > 1) run.name += cat(" (", ++seen[run.name], ")");
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string html;
  html.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      case '\'':
        html += "&#39;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

void write_report(const std::vector<fs::path>& run_dirs, const fs::path& output) {
  if (run_dirs.empty()) throw UserError("report: expected at least one run directory");
  std::vector<RunData> runs;
  for (const fs::path& directory : run_dirs) runs.push_back(read_run(directory));
  make_names_unique(runs);

  std::string title = "Satin: " + runs[0].name;
  for (size_t i = 1; i < runs.size(); ++i) title += (i + 1 < runs.size() ? ", " : " and ") + runs[i].name;
  std::string page =
      cat("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
          "script-src 'unsafe-inline'\">\n<title>",
          escape_html(title), "</title>\n<style>", assets::kDygraphCss, assets::kReportCss,
          "</style>\n</head>\n<body>\n<h1>", escape_html(title), "</h1>\n");
  for (const RunData& run : runs)
    for (const Table& table : run.tables)
      if (table.title == "Summary" && !table.rows.empty())
        page += "<h2>" + escape_html(runs.size() > 1 ? run.name + ": summary" : "Summary") + "</h2>\n" +
                table_html(table.columns, table.rows);
  page += evaluation(runs);
  const std::string data = chart_data(runs);
  if (assets::kDygraphJs.empty())
    page += "<p>This build of Satin has no plotting library (libjs-dygraphs), so the curves are left out.</p>\n";
  else
    page +=
        "<h2>Curves</h2>\n<noscript><p>The curves need JavaScript; the tables do not.</p></noscript>\n"
        "<div id=\"controls\"></div>\n<div id=\"charts\"></div>\n";
  page += last_values(runs) + config_differences(runs);
  page += "<h2>Details</h2>\n";
  for (const RunData& run : runs) {
    const std::string of_run = runs.size() > 1 ? run.name + ": " : "";
    for (const Table& table : run.tables)
      if (table.title != "Summary" && !table.rows.empty())
        page += details(cat(of_run, "quantization (", table.rows.size(), " tensors)"),
                        table_html(table.columns, table.rows), table.rows.size() <= 12);
    if (!run.config_text.empty())
      page += details(of_run + "config.yaml", "<pre>" + escape_html(run.config_text) + "</pre>\n", false);
  }
  if (!assets::kDygraphJs.empty())
    page += cat("<script type=\"application/json\" id=\"data\">", data, "</script>\n<script>", assets::kDygraphJs,
                "</script>\n<script>", assets::kReportJs, "</script>\n");
  page += "</body>\n</html>\n";
  write_file_atomically(output, page);
}

}  // namespace satin::report
