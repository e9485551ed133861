#include "core/line_difference.h"

#include <sstream>

namespace satin {

LineDifference first_line_difference(const std::string& left, const std::string& right) {
  std::istringstream lefts(left), rights(right);
  const auto next = [](std::istringstream& lines) {
    std::string line;
    return std::getline(lines, line) ? std::optional(line) : std::nullopt;
  };
  for (LineDifference at{1, {}, {}};; ++at.number) {
    at.left = next(lefts);
    at.right = next(rights);
    if (at.left != at.right || !at.left) return at;
  }
}

}  // namespace satin
