#include "cli/json_file.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"

namespace satin::cli {

void check_json_file(const std::string& path, const std::string& option) {
  if (path.empty()) return;
  const auto folder = std::filesystem::absolute(path).parent_path();
  if (!std::filesystem::is_directory(folder)) throw UserError(cat(option, ": there is no folder ", folder.string()));
}

void write_json_file(const std::string& path, const nlohmann::json& json) {
  if (!path.empty()) write_file_atomically(path, json.dump(1) + "\n");
}

}  // namespace satin::cli
