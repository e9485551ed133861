// The metrics of metrics.jsonl: what they are called, and their curves over the steps.
#pragma once
#include <string>
#include <vector>

#include "report/chart.h"
#include "report/side_by_side.h"

namespace satin::report {

enum class MetricGroup { kLoss, kEvaluation, kOptimizer, kQuantizers, kMachine };

struct MetricKind {
  std::string title;
  MetricGroup group;
};
/// An unknown metric is a part of the loss.
MetricKind kind_of(const std::string& metric);

/// Metrics of all runs, by group, else in the order in which the runs wrote them.
std::vector<std::string> metrics_of(const Runs& runs);

/// A chart a metric of the group, a curve a run; metrics of which no run has two entries are left out. Beyond 5000
/// points every k-th is drawn.
std::vector<Chart> metric_charts(const Runs& runs, MetricGroup group);

}  // namespace satin::report
