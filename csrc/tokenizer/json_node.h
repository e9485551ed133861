// A value inside tokenizer.json that knows where it is, so that every error names the file and the place.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace satin::tokenizer {

// What a wrong file can make us allocate or call is bounded.
constexpr int kMaxDepth = 16;              ///< of sequences in sequences
constexpr int64_t kMaxId = (1 << 24) - 1;  ///< of a token

class JsonNode {
 public:
  /// `file` and `path` ("pre_tokenizer.pattern") appear in errors; `value` must outlive the node.
  JsonNode(const nlohmann::json& value, std::string file, std::string path = "");

  /// Member of an object. at() throws UserError when it is missing or null; find() returns nothing then.
  JsonNode at(const std::string& key) const;
  std::optional<JsonNode> find(const std::string& key) const;
  /// Elements of an array.
  std::vector<JsonNode> items() const;

  /// The value, or UserError saying what was expected and what was found.
  const std::string& string() const;
  int64_t integer() const;
  bool boolean() const;
  const nlohmann::json& object() const;

  /// Members with a default for "missing or null".
  bool boolean_or(const std::string& key, bool fallback) const;
  std::string string_or(const std::string& key, const std::string& fallback) const;

  /// The member "type": which component this is.
  const std::string& type() const { return type_; }
  const nlohmann::json& json() const { return *value_; }

  /// Throws UserError "<file>: <path>: <message>".
  [[noreturn]] void fail(const std::string& message) const;
  /// Throws UserError saying that this component is not supported, and what is.
  [[noreturn]] void unsupported(const std::string& what, const std::string& supported) const;

 private:
  [[noreturn]] void fail_type(const std::string& expected) const;
  const nlohmann::json* value_;
  std::string file_, path_, type_;
};

}  // namespace satin::tokenizer
