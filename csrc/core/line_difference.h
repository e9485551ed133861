// Where two texts differ, for messages.
#pragma once
#include <cstddef>
#include <optional>
#include <string>

namespace satin {

struct LineDifference {
  size_t number;                           ///< of the line, from 1
  std::optional<std::string> left, right;  ///< the line in each text; none: it has ended before
};

/// The first line that differs. Texts of the same lines: the one after the last.
LineDifference first_line_difference(const std::string& left, const std::string& right);

}  // namespace satin
