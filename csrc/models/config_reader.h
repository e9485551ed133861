// Typed access to the keys of a config.json: every error names the file, the key, what was found and what was expected.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace satin::models {

class ConfigReader {
 public:
  /// Throws UserError unless `object` is a JSON object. It must outlive the reader.
  ConfigReader(const nlohmann::json& object, std::string where);

  const std::string& where() const { return where_; }
  /// nullptr when the key is absent or null.
  const nlohmann::json* find(const std::string& key) const;
  /// Whether the key is there, even as null.
  bool contains(const std::string& key) const { return object_.contains(key); }

  /// An integer in [min, 2^31).
  std::optional<int64_t> integer(const std::string& key, int64_t min) const;
  int64_t required_integer(const std::string& key, int64_t min) const;
  /// A finite number above 0.
  std::optional<double> positive(const std::string& key) const;
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  /// One integer or a list of them; empty when absent.
  std::vector<int64_t> integers(const std::string& key, int64_t min) const;

  /// UserError: "<where>: <key> is <value>, but <expected>".
  [[noreturn]] void refuse(const std::string& key, const std::string& expected) const;

 private:
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace satin::models
