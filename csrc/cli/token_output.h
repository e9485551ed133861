// Where a command may write a token file.
#pragma once
#include <filesystem>
#include <string>

#include "core/error.h"

namespace satin::cli {

/// Throws UserError, beginning with the option, for a name that does not end in .tokens, and for a file that is there
/// unless `force`.
inline void check_new_token_file(const std::string& option, const std::string& path, bool force) {
  if (!path.ends_with(".tokens")) throw UserError(cat(option, ": expected a name that ends in .tokens, found ", path));
  if (std::filesystem::exists(path) && !force)
    throw UserError(cat(option, ": ", path, " exists; use --force to replace it"));
}

}  // namespace satin::cli
