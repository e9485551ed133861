#include "models/config_reader.h"

#include <cmath>
#include <limits>

#include "core/error.h"

namespace satin::models {
using nlohmann::json;

namespace {
bool fits(const json& value, int64_t min) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > std::numeric_limits<int32_t>::max()) return false;
  const int64_t number = value.get<int64_t>();
  return number >= min && number <= std::numeric_limits<int32_t>::max();
}
}  // namespace

ConfigReader::ConfigReader(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) throw UserError(cat(where_, ": a JSON object expected, found ", object.type_name()));
}

const json* ConfigReader::find(const std::string& key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<int64_t> ConfigReader::integer(const std::string& key, int64_t min) const {
  const json* value = find(key);
  if (!value) return {};
  if (!fits(*value, min)) refuse(key, cat("an integer from ", min, " to 2147483647 is expected"));
  return value->get<int64_t>();
}

int64_t ConfigReader::required_integer(const std::string& key, int64_t min) const {
  const auto value = integer(key, min);
  if (!value) throw UserError(cat(where_, ": ", key, " is missing"));
  return *value;
}

std::optional<double> ConfigReader::positive(const std::string& key) const {
  const json* value = find(key);
  if (!value) return {};
  if (!value->is_number() || !(value->get<double>() > 0) || !std::isfinite(value->get<double>()))
    refuse(key, "a number above 0 is expected");
  return value->get<double>();
}

std::optional<bool> ConfigReader::boolean(const std::string& key) const {
  const json* value = find(key);
  if (!value) return {};
  if (!value->is_boolean()) refuse(key, "true or false is expected");
  return value->get<bool>();
}

std::optional<std::string> ConfigReader::text(const std::string& key) const {
  const json* value = find(key);
  if (!value) return {};
  if (!value->is_string()) refuse(key, "text is expected");
  return value->get<std::string>();
}

std::vector<int64_t> ConfigReader::integers(const std::string& key, int64_t min) const {
  const json* value = find(key);
  std::vector<int64_t> numbers;
  if (!value) return numbers;
  const json list = value->is_array() ? *value : json::array({*value});
  for (const json& item : list) {
    if (!fits(item, min)) refuse(key, cat("an integer from ", min, " on, or a list of them, is expected"));
    numbers.push_back(item.get<int64_t>());
  }
  return numbers;
}

void ConfigReader::refuse(const std::string& key, const std::string& expected) const {
  const auto it = object_.find(key);
  std::string value = it == object_.end() ? "absent" : it->dump(-1, ' ', false, json::error_handler_t::replace);
  if (value.size() > 200) value = value.substr(0, 200) + "...";
  throw UserError(cat(where_, ": ", key, " is ", value, ", but ", expected));
}

}  // namespace satin::models
