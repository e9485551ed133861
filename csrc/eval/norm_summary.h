// Gradient norms of a whole text in a few numbers.
#pragma once
#include <cstdint>
#include <vector>

namespace satin::eval {

struct NormSummary {
  double mean;      ///< C_avg
  double max;       ///< C_lower
  double p50, p99;  ///< quantiles, linear between order statistics (numpy's default)
};
/// At least one norm, all finite.
NormSummary summarise(std::vector<float> norms);

/// Bins of log10 |g|, the same for every text and model, so that histograms can be laid over each other.
struct LogBins {
  static constexpr int kFirstDecade = -10, kLastDecade = 2, kBinsPerDecade = 10;
  static constexpr int kCount = (kLastDecade - kFirstDecade) * kBinsPerDecade;
  static double edge(int bin) { return kFirstDecade + static_cast<double>(bin) / kBinsPerDecade; }
};
/// [LogBins::kCount] counts; what lies outside is counted in the first or last bin, zeros in none.
std::vector<int64_t> log10_histogram(const std::vector<float>& norms);

}  // namespace satin::eval
