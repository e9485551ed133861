// The file that --json names, for every command that has one.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace satin::cli {

/// Before long work. Throws UserError when the folder of `path` does not exist; an empty path (no --json) is fine.
void check_json_file(const std::string& path, const std::string& option = "--json");
/// Complete or absent; does nothing for an empty path.
void write_json_file(const std::string& path, const nlohmann::json& json);

}  // namespace satin::cli
