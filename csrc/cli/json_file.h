// The file that --json names, for every command that has one; the check is for any file that a command will write.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace satin::cli {

/// Before long work. Throws UserError naming `option` when the folder of `path` does not exist; an empty path (it was
/// not given) is fine.
void check_json_file(const std::string& path, const std::string& option = "--json");
/// Complete or absent; does nothing for an empty path.
void write_json_file(const std::string& path, const nlohmann::json& json);

}  // namespace satin::cli
