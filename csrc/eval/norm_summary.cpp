#include "eval/norm_summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace satin::eval {
namespace {

double quantile(std::vector<float>& values, double q) {
  const double position = q * static_cast<double>(values.size() - 1);
  const auto low = values.begin() + static_cast<int64_t>(position);
  std::nth_element(values.begin(), low, values.end());
  if (low + 1 == values.end()) return *low;
  const double next = *std::min_element(low + 1, values.end());
  return *low + (position - std::floor(position)) * (next - *low);
}

}  // namespace

NormSummary summarise(std::vector<float> norms) {
  SATIN_CHECK(!norms.empty(), "no norms");
  const double mean = std::accumulate(norms.begin(), norms.end(), 0.0) / static_cast<double>(norms.size());
  const double max = *std::max_element(norms.begin(), norms.end());
  return {mean, max, quantile(norms, 0.5), quantile(norms, 0.99)};
}

std::vector<int64_t> log10_histogram(const std::vector<float>& norms) {
  std::vector<int64_t> counts(LogBins::kCount);
  for (float norm : norms) {
    if (norm == 0) continue;
    const double bin = std::floor((std::log10(norm) - LogBins::kFirstDecade) * LogBins::kBinsPerDecade);
    ++counts[static_cast<size_t>(std::clamp(bin, 0.0, LogBins::kCount - 1.0))];
  }
  return counts;
}

}  // namespace satin::eval
