#include "allocate/rank_correlation.h"

#include <cmath>
#include <cstddef>

#include "core/error.h"

namespace satin::allocate {

double kendall_tau(const std::vector<double>& a, const std::vector<double>& b) {
  SATIN_CHECK_EQ(a.size(), b.size());
  const auto sign = [](double x) { return static_cast<double>((x > 0) - (x < 0)); };
  double agreement = 0, ordered_a = 0, ordered_b = 0;  // pairs: concordant less discordant, not tied in a, in b
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const double in_a = sign(a[i] - a[j]), in_b = sign(b[i] - b[j]);
      agreement += in_a * in_b;
      ordered_a += in_a * in_a;
      ordered_b += in_b * in_b;
    }
  return agreement / std::sqrt(ordered_a * ordered_b);
}

}  // namespace satin::allocate
