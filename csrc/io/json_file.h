// A JSON file, strictly: an object, without duplicate keys or absurd nesting.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace satin::io {

/// Throws UserError naming the file.
nlohmann::json load_json_object(const std::filesystem::path& path);

}  // namespace satin::io
