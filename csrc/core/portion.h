// Things dealt out evenly.
#pragma once
#include <concepts>

namespace satin {

/// The first of `total` things that the part `index` of `parts` has; it has those before the next part's first. Parts
/// differ by one at most. Does not overflow where parts * parts does not.
template <std::integral Int>
constexpr Int portion_begin(Int total, Int parts, Int index) {
  return total / parts * index + total % parts * index / parts;
}

}  // namespace satin
