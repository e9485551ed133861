#include "eval/window_means.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"

namespace satin::eval {
namespace {
double total(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }
}  // namespace

void WindowMeans::add(double sum, double count) {
  sums.push_back(sum);
  counts.push_back(count);
}

double WindowMeans::mean() const { return total(sums) / total(counts); }

Interval WindowMeans::interval() const {
  const double n = static_cast<double>(sums.size()), center = mean();
  if (n < 2) return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  double squares = 0;
  for (size_t w = 0; w < sums.size(); ++w) {
    const double residual = sums[w] - center * counts[w];
    squares += residual * residual;
  }
  const double error = 1.96 * std::sqrt(squares * n / (n - 1)) / total(counts);
  return {center - error, center + error};
}

WindowMeans WindowMeans::minus(const WindowMeans& other) const {
  SATIN_CHECK(counts == other.counts, "means over different predictions");
  WindowMeans difference = *this;
  for (size_t w = 0; w < sums.size(); ++w) difference.sums[w] -= other.sums[w];
  return difference;
}

}  // namespace satin::eval
