#include "report/side_by_side.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "report/markup.h"

namespace satin::report {
namespace {

/// "12.3", or "12.3 (11.9 to 12.7)"; "" when absent.
std::string cell(const EvalResult& result, const std::string& pointer) {
  const auto value = result.number(pointer);
  if (!value) return "";
  const auto bound = [&](int i) { return result.number(cat(pointer, "_ci95/", i)); };
  if (!bound(0) || !bound(1)) return number_text(*value);
  return cat(number_text(*value), " (", number_text(*bound(0)), " to ", number_text(*bound(1)), ")");
}

std::map<std::string, std::string> protocol_of(const EvalResult& result) {
  std::map<std::string, std::string> values;
  if (!result.json.contains("protocol") || !result.json["protocol"].is_object()) return values;
  for (const auto& [key, value] : result.json["protocol"].items())
    values[key] = value.is_string() ? value.get<std::string>() : value.dump();
  for (const char* key : {"model", "teacher"})  // which weights: not a difference of protocol, but worth knowing
    if (result.json.contains(key) && result.json[key].is_string()) values[cat("(", key, ")")] = result.json[key];
  return values;
}

bool differs_in_protocol(const std::vector<std::map<std::string, std::string>>& protocols) {
  return std::ranges::any_of(protocols, [&](auto protocol) {
    auto first = protocols[0];
    for (auto* values : {&protocol, &first}) std::erase_if(*values, [](const auto& v) { return v.first[0] == '('; });
    return protocol != first;
  });
}

}  // namespace

std::vector<std::string> names_of(const Runs& runs) {
  std::vector<std::string> names;
  for (const RunData& run : runs) names.push_back(run.name);
  return names;
}

std::string differences_html(const std::vector<std::string>& names,
                             const std::vector<std::map<std::string, std::string>>& values) {
  std::set<std::string> keys;
  for (const auto& of_column : values)
    for (const auto& [key, value] : of_column) keys.insert(key);
  std::vector<std::vector<std::string>> rows;
  for (const std::string& key : keys) {
    std::vector<std::string> row = {key};
    std::set<std::string> distinct;
    for (const auto& of_column : values) {
      const auto value = of_column.find(key);
      row.push_back(value == of_column.end() ? "(absent)" : value->second);
      distinct.insert(row.back());
    }
    if (distinct.size() > 1) rows.push_back(std::move(row));
  }
  std::vector<std::string> columns = names;
  columns.insert(columns.begin(), "key");
  return rows.empty() ? "" : table_html(columns, rows);
}

std::vector<TextResults> results_of(const Runs& runs, const std::string& task) {
  std::vector<TextResults> texts;
  for (size_t r = 0; r < runs.size(); ++r)
    for (const EvalResult& result : runs[r].results) {
      if (result.task != task) continue;
      auto found = std::ranges::find(texts, result.text, &TextResults::text);
      if (found == texts.end()) found = texts.insert(texts.end(), {result.text, {}});
      found->runs.emplace_back(static_cast<int>(r), &result);
    }
  return texts;
}

std::vector<ChartCurve> model_curves(const Runs& runs, const TextResults& results,
                                     const std::function<ChartCurve(const EvalResult&, const std::string&)>& make) {
  std::vector<CurvePair> pairs;
  for (const auto& [run, result] : results.runs) {
    CurvePair pair{run, runs[static_cast<size_t>(run)].name, make(*result, "student"), make(*result, "teacher")};
    if (!pair.student.x.empty()) pairs.push_back(std::move(pair));
  }
  return beside(pairs);
}

std::string comparison_html(const Runs& runs, const TextResults& results, const std::vector<ComparisonRow>& rows) {
  std::vector<std::pair<std::string, size_t>> groups = {{"", 1}};
  std::vector<std::string> columns = {"number"};
  std::vector<std::vector<std::string>> table;
  for (const ComparisonRow& row : rows) table.push_back({row.label});
  for (const auto& [run, result] : results.runs) {
    std::vector<std::string> parts = {"student"};
    bool has_teacher = false;
    for (const ComparisonRow& row : rows) has_teacher |= result->number(row.pointer + "/teacher").has_value();
    if (has_teacher) parts.insert(parts.end(), {"teacher", "ratio", "excess"});
    groups.emplace_back(runs[static_cast<size_t>(run)].name, parts.size());
    for (const std::string& part : parts) {
      columns.push_back(part);
      for (size_t i = 0; i < rows.size(); ++i) table[i].push_back(cell(*result, cat(rows[i].pointer, "/", part)));
    }
  }
  std::erase_if(table, [](const auto& cells) {
    return std::ranges::all_of(cells.begin() + 1, cells.end(), [](const auto& text) { return text.empty(); });
  });
  return table.empty() ? "" : grouped_table_html(groups, columns, table);
}

std::string protocol_html(const Runs& runs, const TextResults& results) {
  std::vector<std::string> names;
  std::vector<std::map<std::string, std::string>> protocols;
  std::vector<std::vector<std::string>> rows;
  for (const auto& [run, result] : results.runs) {
    names.push_back(runs[static_cast<size_t>(run)].name);
    protocols.push_back(protocol_of(*result));
    for (const auto& [key, value] : protocols.back()) rows.push_back({names.back(), key, value});
  }
  std::string html;
  if (differs_in_protocol(protocols))
    html += paragraph("These runs were evaluated under different protocols, so their numbers do not compare:") +
            differences_html(names, protocols);
  return html + (rows.empty() ? "" : details("How this was measured", table_html({"run", "key", "value"}, rows)));
}

}  // namespace satin::report
