#include "config/config.h"
#include "config/fields.h"
#include "config/scalar.h"

namespace satin::config {
namespace {

constexpr int kIndent = 2;

/// Appends "key: value" lines, `indent` spaces deep.
class Writer {
 public:
  template <Section S>
  void section(const S& section, int indent, bool in_list) {
    for_each_field<S>([&](const auto& row) {
      if (in_list || !row.spec.list_only) entry(row.key, section.*row.member, indent);
    });
  }
  std::string take() { return std::move(text_); }

 private:
  void start(const char* key, int indent) { text_ += std::string(indent, ' ') + key + ":"; }

  template <Section S>
  void entry(const char* key, const S& value, int indent) {
    start(key, indent);
    text_ += "\n";
    section(value, indent + kIndent, false);
  }
  template <Section S>
  void entry(const char* key, const std::optional<S>& value, int indent) {
    if (value) entry(key, *value, indent);
  }
  template <class Item>
  void entry(const char* key, const std::vector<Item>& items, int indent) {
    start(key, indent);
    text_ += items.empty() ? " []\n" : "\n";
    for (const Item& item : items) {
      if constexpr (Section<Item>) {
        const size_t begin = text_.size();
        section(item, indent + 2 * kIndent, true);
        text_[begin + indent + kIndent] = '-';  // the first key stands behind the dash
      } else {
        text_ += std::string(indent + kIndent, ' ') + "- " + format_value(item) + "\n";
      }
    }
  }
  template <class T>
  void entry(const char* key, const T& value, int indent) {
    start(key, indent);
    text_ += " " + format_value(value) + "\n";
  }

  std::string text_;
};

}  // namespace

std::string dump(const Config& config) {
  Writer writer;
  writer.section(config, 0, false);
  return writer.take();
}

}  // namespace satin::config
