// What a field table says of one key.
#pragma once
#include <limits>
#include <string>
#include <vector>

namespace satin::config {

inline constexpr double kUnlimited = std::numeric_limits<double>::infinity();

struct Spec {
  const char* help = "";
  const char* unit = "";
  const char* one_of = "";  ///< allowed values, "a | b | c"
  double at_least = -kUnlimited, above = -kUnlimited;
  double at_most = kUnlimited, below = kUnlimited;
  bool path = false;          ///< made absolute when loaded
  bool required = false;      ///< must be given and not empty
  bool shorthand = false;     ///< a list item written as a plain value means this key
  bool list_only = false;     ///< a key of list items only, not of the same struct elsewhere
  const char* known_as = "";  ///< names of the same thing in other trainers, "a | b": suggested, never accepted
};

/// The parts of "a | b | c".
std::vector<std::string> alternatives(const char* text);
/// "one of a | b", "steps, at least 0", ... or "".
std::string limits(const Spec& spec);

}  // namespace satin::config
