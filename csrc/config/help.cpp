#include "config/config.h"
#include "config/fields.h"
#include "config/scalar.h"

namespace satin::config {
namespace {

constexpr const char* kIntroduction =
    "Keys of a configuration with their defaults. On the command line: train.max_steps=100, list items by index:\n"
    "data.train.0.path=more.jsonl (one past the end appends). Relative paths in a file start at the file's folder.\n";

class HelpWriter {
 public:
  template <Section S>
  void section(const std::string& at, const S& defaults, bool in_list) {
    for_each_field<S>([&](const auto& row) {
      if (row.spec.list_only && !in_list) return;
      entry(at.empty() ? row.key : at + "." + row.key, defaults.*row.member, row.spec);
    });
  }
  std::string take() { return std::move(text_); }

 private:
  void title(const std::string& key, const Spec& spec) { text_ += "\n" + key + ": " + spec.help + "\n"; }
  void line(const std::string& key, const std::string& value, const Spec& spec) {
    text_ += "  " + key + " = " + value;
    const std::string bounds = limits(spec);
    if (!bounds.empty()) text_ += "  [" + bounds + "]";
    text_ += std::string(spec.required && value == "\"\"" ? "  required" : "") + "\n      " + spec.help + "\n";
  }

  template <Section S>
  void entry(const std::string& key, const S& defaults, const Spec& spec) {
    title(key, spec);
    section(key, defaults, false);
  }
  template <Section S>
  void entry(const std::string& key, const std::optional<S>&, const Spec& spec) {
    title(key, spec);
    section(key, S{}, false);
  }
  template <Section S>
  void entry(const std::string& key, const std::vector<S>&, const Spec& spec) {
    title(key + "[]", spec);
    section(key + "[]", S{}, true);
  }
  void entry(const std::string& key, const std::vector<std::string>&, const Spec& spec) { line(key, "[]", spec); }
  template <class Number>
  requires std::is_arithmetic_v<Number>
  void entry(const std::string& key, const std::vector<Number>& values, const Spec& spec) {
    std::string list;
    for (const Number value : values) list += (list.empty() ? "" : ", ") + format_value(value);
    line(key, "[" + list + "]", spec);
  }
  template <class T>
  void entry(const std::string& key, const T& value, const Spec& spec) {
    line(key, shown(value), spec);
  }
  static std::string shown(const std::string& value) { return value.empty() ? "\"\"" : value; }
  template <class T>
  static std::string shown(const T& value) {
    return format_value(value);
  }

  std::string text_ = kIntroduction;
};

}  // namespace

std::string help() {
  HelpWriter writer;
  writer.section("", Config{}, false);
  return writer.take();
}

}  // namespace satin::config
