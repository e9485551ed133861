#include "config/unchanged.h"

#include <sstream>

#include "core/error.h"
#include "core/file.h"

namespace satin::config {
namespace {

/// "'a', now 'b'" of the first line that differs.
std::string first_difference(const std::string& before, const std::string& now) {
  std::istringstream old_lines(before), new_lines(now);
  std::string a, b;
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(old_lines, a));
    const bool more_b = static_cast<bool>(std::getline(new_lines, b));
    if (!more_a || !more_b || a != b) return cat("'", more_a ? a : "", "', now '", more_b ? b : "", "'");
  }
}

}  // namespace

void check_unchanged(const std::filesystem::path& stored, const std::string& now, const std::filesystem::path& folder) {
  if (!std::filesystem::exists(stored)) return;
  const std::string before = read_file(stored);
  if (before != now)
    throw UserError(cat(folder.string(), ": the interrupted run that left it was configured differently (",
                        first_difference(before, now), "); continue with that configuration, or delete the folder"));
}

}  // namespace satin::config
