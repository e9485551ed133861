// The name that a person probably meant.
#pragma once
#include <string>
#include <vector>

namespace satin {

/// The candidate with the least edit distance (Damerau-Levenshtein), or "" when none is within a third of its length
/// + 1.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);
/// "; did you mean X?" or "".
std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace satin
