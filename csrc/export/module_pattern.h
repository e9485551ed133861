// Patterns that configurations of quantized files match module names with.
#pragma once
#include <string>

namespace satin::exporting {

/// Whether `name` matches from its start (not to its end), as Python's re.match. The pattern may be a stranger's: steps
/// and memory are bounded. Throws UserError naming the pattern when it is malformed or takes too long.
bool matches_from_start(const std::string& pattern, const std::string& name);

}  // namespace satin::exporting
