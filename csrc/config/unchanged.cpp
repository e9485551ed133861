#include "config/unchanged.h"

#include "core/error.h"
#include "core/file.h"
#include "core/line_difference.h"

namespace satin::config {

void check_unchanged(const std::filesystem::path& stored, const std::string& now, const std::filesystem::path& folder) {
  if (!std::filesystem::exists(stored)) return;
  const std::string before = read_file(stored);
  if (before == now) return;
  const LineDifference found = first_line_difference(before, now);
  throw UserError(cat(folder.string(), ": the interrupted run that left it was configured differently ('",
                      found.left.value_or(""), "', now '", found.right.value_or(""),
                      "'); continue with that configuration, or delete the folder"));
}

}  // namespace satin::config
