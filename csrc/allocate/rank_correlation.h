// Whether two sensitivities order layers alike.
#pragma once
#include <vector>

namespace satin::allocate {

/// Kendall's tau-b (Kendall 1945) of two equally long lists: 1 for the same order, -1 for the opposite one, ties in
/// either counted; NaN when one of them is constant.
double kendall_tau(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace satin::allocate
