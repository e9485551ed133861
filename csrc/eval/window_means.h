// A mean over the predictions of a text, with the uncertainty that comes from its windows being a sample.
#pragma once
#include <cstdint>
#include <vector>

namespace satin::eval {

struct Interval {
  double low, high;  ///< 95 %
};

/// sum / count of each window; windows are taken as independent.
struct WindowMeans {
  std::vector<double> sums, counts;

  void add(double sum, double count);
  /// sum over windows / count over windows; NaN when nothing was counted.
  double mean() const;
  /// mean -+ 1.96 standard errors, those of a ratio of sums (linearised; normal approximation). NaN for one window.
  Interval interval() const;
  /// Sums minus those of `other`, of the same windows and counts: its interval is that of a paired difference.
  WindowMeans minus(const WindowMeans& other) const;
};

}  // namespace satin::eval
