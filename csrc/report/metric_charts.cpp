#include "report/metric_charts.h"

#include <algorithm>

namespace satin::report {
namespace {

constexpr size_t kMaxPoints = 5000;  // of a curve

/// How much was read, and how: nothing that a curve would tell.
bool is_no_curve(const std::string& metric) {
  return metric == "tokens" || metric.ends_with("/tokens") || metric.find("/protocol/") != std::string::npos;
}

std::string role_of(MetricGroup group) {
  if (group == MetricGroup::kLoss) return "loss";
  return group == MetricGroup::kEvaluation ? "evaluation" : "training";
}

}  // namespace

MetricKind kind_of(const std::string& metric) {
  using enum MetricGroup;
  if (metric.starts_with("eval/")) return {metric.substr(5), kEvaluation};
  if (metric.starts_with("lr")) return {"learning rate" + (metric == "lr" ? "" : " (" + metric + ")"), kOptimizer};
  if (metric.starts_with("grad_norm"))
    return {"gradient norm" + (metric == "grad_norm" ? "" : " (" + metric + ")"), kOptimizer};
  if (metric == "quantizers/scale_drift") return {"relative change of scales since the start", kQuantizers};
  if (metric == "quantizers/clipped") return {"share of weights outside the grid", kQuantizers};
  if (metric == "quantizers/changed") return {"share of codes changed since the last entry", kQuantizers};
  if (metric.starts_with("quantizers/")) return {metric.substr(11), kQuantizers};
  if (metric == "tokens_per_second") return {"tokens per second", kMachine};
  if (metric == "mfu") return {"MFU (share of the device's peak)", kMachine};
  if (metric == "compute_ms") return {"computing (ms a step)", kMachine};
  if (metric == "communication_ms") return {"waiting for other processes (ms a step)", kMachine};
  if (metric == "data_ms") return {"waiting for data (ms a step)", kMachine};
  if (metric == "memory") return {"memory (bytes)", kMachine};
  if (metric.starts_with("memory") || metric == "tokens" || metric.ends_with("_ms") || metric.ends_with("_s") ||
      metric.ends_with("_bytes"))
    return {metric, kMachine};
  return {metric == "loss" ? "loss (total)" : metric, kLoss};
}

std::vector<std::string> metrics_of(const Runs& runs) {
  std::vector<std::string> metrics;
  for (const RunData& run : runs)
    for (const std::string& metric : run.metrics)
      if (std::ranges::find(metrics, metric) == metrics.end()) metrics.push_back(metric);
  std::ranges::stable_sort(metrics, {}, [](const std::string& metric) { return kind_of(metric).group; });
  return metrics;
}

std::vector<Chart> metric_charts(const Runs& runs, MetricGroup group) {
  std::vector<Chart> charts;
  for (const std::string& metric : metrics_of(runs)) {
    const MetricKind kind = kind_of(metric);
    if (kind.group != group || is_no_curve(metric)) continue;
    Chart chart{.title = kind.title, .x_label = "step", .role = role_of(group)};
    bool has_line = false;
    for (size_t i = 0; i < runs.size(); ++i) {
      const auto found = runs[i].curves.find(metric);
      if (found == runs[i].curves.end()) continue;
      const Curve& curve = found->second;
      ChartCurve drawn{.name = runs[i].name, .colour = static_cast<int>(i)};
      const size_t stride = (curve.steps.size() + kMaxPoints - 1) / kMaxPoints;
      for (size_t p = 0; p < curve.steps.size(); p += stride) {
        drawn.x.push_back(static_cast<double>(curve.steps[p]));
        drawn.y.push_back(curve.values[p]);
      }
      has_line |= drawn.x.size() > 1;
      chart.curves.push_back(std::move(drawn));
    }
    if (has_line) charts.push_back(std::move(chart));
  }
  return charts;
}

}  // namespace satin::report
