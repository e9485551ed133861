// Work on many tensors at once, as many as there are threads.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace satin::exporting {

/// Told after each tensor, one call at a time: what is being done ("packing") and the part of it that is done, 0 ... 1.
using Progress = std::function<void(const std::string& phase, double done)>;

/// task(i) for each of `sizes`, the largest first, each on one thread. The first exception ends the others' work after
/// their present task and is thrown. `sizes` are what `progress` counts.
void in_parallel(const std::vector<int64_t>& sizes, const std::function<void(size_t)>& task, const std::string& phase,
                 const Progress& progress);

}  // namespace satin::exporting
