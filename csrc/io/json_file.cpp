#include "io/json_file.h"

#include <set>

#include "core/error.h"
#include "core/file.h"

namespace satin::io {

nlohmann::json load_json_object(const std::filesystem::path& path) {
  using Json = nlohmann::json;
  constexpr int kMaxDepth = 100;
  std::vector<std::set<std::string>> keys;  // of the objects open now
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) throw UserError(cat(path.string(), ": nested more than ", kMaxDepth, " deep"));
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw UserError(cat(path.string(), ": key \"", value.get<std::string>(), "\" found twice in one object"));
    return true;
  };
  Json json;
  try {
    json = Json::parse(read_file(path), watch);
  } catch (const Json::exception& error) {
    throw UserError(cat(path.string(), ": not valid JSON: ", error.what()));
  }
  if (!json.is_object()) throw UserError(cat(path.string(), ": expected a JSON object, found ", json.type_name()));
  return json;
}

}  // namespace satin::io
