// Many problems, one message.
#pragma once
#include <string>
#include <vector>

namespace satin::io {

/// Throws UserError: `where`, then the first twenty problems, a line each, and how many more there are.
[[noreturn]] void throw_problems(const std::string& where, const std::vector<std::string>& problems);

}  // namespace satin::io
