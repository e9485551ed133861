#include "tokenizer/json_node.h"

#include <nlohmann/json.hpp>

#include "core/error.h"

namespace satin::tokenizer {

JsonNode::JsonNode(const nlohmann::json& value, std::string file, std::string path)
    : value_(&value), file_(std::move(file)), path_(std::move(path)) {
  if (value.is_object()) {
    const auto type = value.find("type");
    if (type != value.end() && type->is_string()) type_ = type->get<std::string>();
  }
}

std::optional<JsonNode> JsonNode::find(const std::string& key) const {
  const auto member = object().find(key);
  if (member == value_->end() || member->is_null()) return std::nullopt;
  return JsonNode(*member, file_, path_.empty() ? key : path_ + "." + key);
}

JsonNode JsonNode::at(const std::string& key) const {
  if (auto member = find(key)) return *member;
  fail("\"" + key + "\" is missing");
}

std::vector<JsonNode> JsonNode::items() const {
  if (!value_->is_array()) fail_type("a list");
  std::vector<JsonNode> nodes;
  nodes.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) nodes.emplace_back((*value_)[i], file_, cat(path_, "[", i, "]"));
  return nodes;
}

const std::string& JsonNode::string() const {
  if (!value_->is_string()) fail_type("a string");
  return value_->get_ref<const std::string&>();
}

int64_t JsonNode::integer() const {
  if (!value_->is_number_integer()) fail_type("an integer");
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > INT64_MAX) fail_type("an integer below 2^63");
  return value_->get<int64_t>();
}

bool JsonNode::boolean() const {
  if (!value_->is_boolean()) fail_type("true or false");
  return value_->get<bool>();
}

const nlohmann::json& JsonNode::object() const {
  if (!value_->is_object()) fail_type("an object");
  return *value_;
}

bool JsonNode::boolean_or(const std::string& key, bool fallback) const {
  const auto member = find(key);
  return member ? member->boolean() : fallback;
}

std::string JsonNode::string_or(const std::string& key, const std::string& fallback) const {
  const auto member = find(key);
  return member ? member->string() : fallback;
}

void JsonNode::fail(const std::string& message) const {
  throw UserError(path_.empty() ? cat(file_, ": ", message) : cat(file_, ": ", path_, ": ", message));
}

void JsonNode::fail_type(const std::string& expected) const {
  fail(cat("expected ", expected, ", found ", value_->type_name()));
}

void JsonNode::unsupported(const std::string& what, const std::string& supported) const {
  fail(cat(what, " is not supported (supported: ", supported, ")"));
}

}  // namespace satin::tokenizer
