#include "io/problems.h"

#include <algorithm>

#include "core/error.h"

namespace satin::io {

void throw_problems(const std::string& where, const std::vector<std::string>& problems) {
  constexpr size_t kShown = 20;
  std::string text = cat(where, " (", problems.size(), problems.size() == 1 ? " problem):" : " problems):");
  for (size_t i = 0; i < std::min(problems.size(), kShown); ++i) text += "\n  " + problems[i];
  if (problems.size() > kShown) text += cat("\n  ... and ", problems.size() - kShown, " more");
  throw UserError(text);
}

}  // namespace satin::io
