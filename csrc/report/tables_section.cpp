// The parts of the page that are only tables: results, configurations, the quantized tensors.
#include <algorithm>

#include "core/error.h"
#include "report/markup.h"
#include "report/sections.h"

namespace satin::report {
namespace {

using Cells = std::vector<std::pair<std::string, std::string>>;  ///< column, text

/// Rows with columns of their own, in one table.
std::string union_table(const std::vector<Cells>& rows) {
  std::vector<std::string> columns;
  for (const Cells& row : rows)
    for (const auto& [column, text] : row)
      if (std::ranges::find(columns, column) == columns.end()) columns.push_back(column);
  std::vector<std::vector<std::string>> table;
  for (const Cells& row : rows) {
    table.emplace_back(columns.size());
    for (const auto& [column, text] : row)
      table.back()[static_cast<size_t>(std::ranges::find(columns, column) - columns.begin())] = text;
  }
  return table_html(columns, table);
}

std::string of_run(const Runs& runs, const RunData& run) { return runs.size() > 1 ? run.name + ": " : ""; }

}  // namespace

std::string results_section(const Runs& runs) {
  std::vector<Cells> summary, evaluation;
  const auto add = [](std::vector<Cells>& rows, const RunData& run, bool named, const Table& table) {
    for (const auto& cells : table.rows) {
      rows.push_back(named ? Cells{{"run", run.name}} : Cells{});
      for (size_t i = 0; i < cells.size(); ++i) rows.back().emplace_back(table.columns[i], cells[i]);
    }
  };
  for (const RunData& run : runs) {
    for (const Table& table : run.tables)
      if (table.title == "Summary") add(summary, run, runs.size() > 1, table);
    add(evaluation, run, true, run.evaluation);
  }
  return (summary.empty() ? "" : heading("Summary") + union_table(summary)) +
         (evaluation.empty() ? "" : heading("Evaluation") + union_table(evaluation));
}

std::string other_tasks_section(const Runs& runs) {
  std::vector<Cells> rows;
  for (const RunData& run : runs)
    for (const EvalResult& result : run.results) {
      if (result.task == "smoothness" || result.task == "robustness") continue;
      rows.push_back({{"run", run.name}, {"text", result.text}, {"task", result.task}});
      for (const auto& [key, value] : result.json.items())
        if (value.is_number()) rows.back().emplace_back(key, number_text(value.get<double>()));
      if (const auto length = result.number("/protocol/sequence_length"))
        rows.back().emplace_back("sequence length", number_text(*length));
    }
  return rows.empty() ? "" : heading("Evaluation after training") + union_table(rows);
}

std::string configuration_section(const Runs& runs) {
  if (runs.size() < 2) return "";
  std::vector<std::map<std::string, std::string>> configs;
  for (const RunData& run : runs) configs.push_back(run.config);
  const std::string differences = differences_html(names_of(runs), configs);
  if (differences.empty()) return heading("Configuration") + paragraph("The configurations are the same.");
  return heading("Configuration: what differs") + differences;
}

std::string details_section(const Runs& runs) {
  std::string html;
  for (const RunData& run : runs) {
    for (const Table& table : run.tables)
      if (table.title != "Summary" && !table.rows.empty())
        html += details(cat(of_run(runs, run), "quantization (", table.rows.size(), " tensors)"),
                        table_html(table.columns, table.rows), table.rows.size() <= 12);
    if (!run.config_text.empty())
      html += details(of_run(runs, run) + "config.yaml", "<pre>" + escape_html(run.config_text) + "</pre>\n");
  }
  return html.empty() ? "" : heading("Details") + html;
}

}  // namespace satin::report
