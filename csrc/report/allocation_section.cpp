// Bits of layers: what satin allocate measured and chose.
#include <cmath>

#include "core/error.h"
#include "report/markup.h"
#include "report/sections.h"

namespace satin::report {
namespace {

using Value = double AllocationResult::*;

ChartCurve curve_of(const std::string& name, const std::vector<AllocationResult>& results, Value value, int colour) {
  ChartCurve curve{.name = name, .colour = colour};
  for (const AllocationResult& result : results) {
    curve.x.push_back(result.effective_bits);
    curve.y.push_back(result.*value);
  }
  return curve;
}

/// The loss of every budget's allocation, and of the lists.
Chart loss_chart(const AllocationData& data, const std::string& title, Value value) {
  Chart chart{.title = title, .x_label = "bits a weight, scales included", .style = "points"};
  if (!data.frontier.empty())
    chart.curves.push_back(curve_of("allocations of growing budgets", data.frontier, value, 0));
  int colour = 1;
  for (const AllocationResult& list : data.lists) chart.curves.push_back(curve_of(list.name, {list}, value, colour++));
  return chart;
}

Chart bits_chart(const AllocationData& data) {
  Chart chart{.title = "Bits", .x_label = "layer", .style = "points"};
  int colour = 1;
  for (const AllocationResult& list : data.lists) {
    ChartCurve curve{.name = list.name, .colour = colour++};
    for (size_t layer = 0; layer < list.bits.size(); ++layer) {
      curve.x.push_back(static_cast<double>(layer));
      curve.y.push_back(list.bits[layer]);
    }
    chart.curves.push_back(std::move(curve));
  }
  return chart;
}

Chart cost_chart(const AllocationData& data) {
  Chart chart{.title = "Cost of rounding one layer", .x_label = "layer", .style = "points"};
  int colour = 0;
  for (const auto& [bits, costs] : data.costs) {
    ChartCurve curve{.name = bits + " bits", .colour = colour++};
    for (size_t layer = 0; layer < costs.size(); ++layer) {
      curve.x.push_back(static_cast<double>(layer));
      curve.y.push_back(costs[layer]);
    }
    chart.curves.push_back(std::move(curve));
  }
  return chart;
}

std::string lists_table(const AllocationData& data) {
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const AllocationResult& result) {
    std::string bits;
    for (const double value : result.bits) bits += (bits.empty() ? "" : " ") + number_text(value);
    rows.push_back({result.name, number_text(result.effective_bits), number_text(result.perplexity),
                    std::isnan(result.answers) ? "" : number_text(result.answers), bits});
  };
  add(data.full_precision);
  for (const AllocationResult& list : data.lists) add(list);
  return table_html({"list", "bits a weight", "perplexity", "answers, nats a token", "bits of each layer"}, rows);
}

}  // namespace

std::string allocation_section(const Runs& runs, Charts& charts) {
  std::string html;
  for (const RunData& run : runs) {
    const AllocationData& data = run.allocation;
    if (data.empty()) continue;
    html += heading(runs.size() > 1 ? "Bits of layers: " + run.name : "Bits of layers");
    html += paragraph(
        "Each list gives a number of bits to every decoder layer; its losses are of the model rounded to nearest with "
        "all of them. The allocation minimises the summed cost of the layers, measured one at a time, within a "
        "budget.");
    std::vector<Chart> drawn{loss_chart(data, "Perplexity", &AllocationResult::perplexity)};
    if (!std::isnan(data.full_precision.answers))
      drawn.push_back(loss_chart(data, "Cross-entropy of the answers, nats a token", &AllocationResult::answers));
    drawn.push_back(cost_chart(data));
    drawn.push_back(bits_chart(data));
    html += charts.place(std::move(drawn)) + lists_table(data);
    std::string tau;
    for (const auto& [bits, value] : data.kendall_tau)
      tau += cat(tau.empty() ? "" : "; ", bits, " bits: ", fixed(value, 2));
    if (!tau.empty())
      html += paragraph("Kendall's tau of the layers' orders by perplexity and by answers: " + tau + ".");
  }
  return html;
}

}  // namespace satin::report
