// Whether a folder's results are of this configuration.
#pragma once
#include <filesystem>
#include <string>

namespace satin::config {

/// Throws UserError when `stored` (a file that dump() filled) is there and is not `now`: with `folder`, what differs
/// first, and what to do.
void check_unchanged(const std::filesystem::path& stored, const std::string& now, const std::filesystem::path& folder);

}  // namespace satin::config
