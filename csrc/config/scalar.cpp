#include "config/scalar.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/nearest.h"

namespace satin::config {
namespace {

namespace fs = std::filesystem;

constexpr double kLargestExact = 9007199254740992.0;  // 2^53
constexpr size_t kLongestFixed = 8;

std::string expected(const std::string& what, const Spec& spec, const Node& node) {
  const std::string bounds = limits(spec);
  return cat("expected ", what, bounds.empty() ? "" : " (" + bounds + ")", ", found ", node.describe());
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);  // from_chars knows no plus
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool within(double value, const Spec& spec) {
  return value >= spec.at_least && value > spec.above && value <= spec.at_most && value < spec.below;
}

template <class T>
std::string read_integer(const Node& node, const Spec& spec, T& out) {
  std::optional<T> value;
  if (node.kind == Node::Kind::scalar && !node.quoted) {
    value = parse_number<T>(node.text);
    if (!value) {  // 24e6 is a natural way to write a number of tokens
      const auto real = parse_number<double>(node.text);
      if (real && *real == std::floor(*real) && std::abs(*real) <= kLargestExact &&
          (*real >= 0 || std::is_signed_v<T>)) {
        value = static_cast<T>(*real);
      }
    }
  }
  if (!value || !within(static_cast<double>(*value), spec)) return expected("an integer", spec, node);
  out = *value;
  return "";
}

/// Absolute and normal, without a trailing slash.
std::string resolve(const std::string& text, const fs::path& directory) {
  fs::path path = text;
  const char* home = std::getenv("HOME");
  if (home && (text == "~" || text.starts_with("~/"))) path = home + text.substr(1);
  path = (directory / path).lexically_normal();
  if (!path.has_filename() && path.has_relative_path()) path = path.parent_path();
  return path.string();
}

}  // namespace

std::string read_value(const Node& node, const Spec& spec, bool& out) {
  const bool plain = node.kind == Node::Kind::scalar && !node.quoted;
  if (plain && (node.text == "true" || node.text == "True" || node.text == "TRUE")) {
    out = true;
  } else if (plain && (node.text == "false" || node.text == "False" || node.text == "FALSE")) {
    out = false;
  } else {
    return expected("true or false", spec, node);
  }
  return "";
}

std::string read_value(const Node& node, const Spec& spec, int64_t& out) { return read_integer(node, spec, out); }
std::string read_value(const Node& node, const Spec& spec, uint64_t& out) { return read_integer(node, spec, out); }

std::string read_value(const Node& node, const Spec& spec, double& out) {
  std::optional<double> value;
  if (node.kind == Node::Kind::scalar && !node.quoted) value = parse_number<double>(node.text);
  if (!value || !std::isfinite(*value) || !within(*value, spec)) return expected("a number", spec, node);
  out = *value;
  return "";
}

std::string read_value(const Node& node, const Spec& spec, std::string& out) {
  const std::string what = spec.path ? "a path" : *spec.one_of ? "a name" : "a string";
  if (node.kind == Node::Kind::null && !*spec.one_of) {  // "teacher.path=" empties it; `required` is checked elsewhere
    out.clear();
    return "";
  }
  if (node.kind == Node::Kind::map && !*spec.one_of) {
    return expected(what, spec, node) + "; put a text that contains ': ' or '{' in quotes";
  }
  if (node.kind != Node::Kind::scalar) return expected(what, spec, node);
  if (*spec.one_of) {
    const auto names = alternatives(spec.one_of);
    if (std::find(names.begin(), names.end(), node.text) == names.end()) {
      return expected(what, spec, node) + did_you_mean(node.text.substr(0, 64), names);
    }
  }
  if (spec.path && node.text.find('\0') != std::string::npos) return "expected a path, found one with a NUL character";
  out = spec.path && !node.text.empty() ? resolve(node.text, node.place.source->directory) : node.text;
  return "";
}

std::string format_number(double value) {
  char buffer[400];  // the smallest number takes 326 characters
  char* const end = buffer + sizeof buffer;
  std::string text(buffer, std::to_chars(buffer, end, value, std::chars_format::fixed).ptr);
  if (text.size() <= kLongestFixed) return text;  // 0.0005 reads better than 5e-04
  text.assign(buffer, std::to_chars(buffer, end, value).ptr);
  const size_t exponent = text.find('e');
  if (exponent != text.npos && text.find('.') == text.npos) text.insert(exponent, ".0");
  return text;
}

std::string format_value(bool value) { return value ? "true" : "false"; }
std::string format_value(int64_t value) { return std::to_string(value); }
std::string format_value(uint64_t value) { return std::to_string(value); }
std::string format_value(double value) { return format_number(value); }
std::string format_value(const std::string& value) {
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}  // YAML reads JSON's quotes

}  // namespace satin::config
