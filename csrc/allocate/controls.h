// What an allocation is compared with.
#pragma once
#include "allocate/allocation.h"

namespace satin::allocate {

/// Every layer at the most bits, among those that all layers have, which the budget allows. Throws UserError when there
/// are none.
Allocation uniform_bits(const std::vector<Layer>& layers, double mean_bits);

/// As many bits as the budget allows, given out blindly: a layer drawn by `seed` takes its next candidate, until none
/// can.
Allocation random_bits(const std::vector<Layer>& layers, double mean_bits, uint64_t seed);

}  // namespace satin::allocate
