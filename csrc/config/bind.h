// Binds a tree to the structs by their field tables, and notes where each key stands.
#pragma once
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "config/document.h"
#include "config/fields.h"
#include "config/scalar.h"
#include "config/validate.h"
#include "core/error.h"

namespace satin::config {

/// "; did you mean ...?" for a key that `siblings` lack, from their names, other sections' keys and other trainers'
/// names.
std::string suggest_key(const std::string& name, const std::string& section, const std::vector<std::string>& siblings);

// What unset keys mean where the struct's own defaults are not it.
template <class Owner, class Item>
Item new_item(const Owner&, const Item*) {
  return {};
}
inline QuantizationRule new_item(const Quantization& owner, const QuantizationRule*) { return owner.default_rule; }

template <class S>
void complete(S&, const Node&) {}
inline void complete(QuantizationRule& rule, const Node& node) {
  if (!node.find("bits")) {
    rule.bits = implied_bits(rule.method).value_or(rule.bits);
    if (!rule.column_bits.empty()) rule.bits = static_cast<double>(*std::ranges::max_element(rule.column_bits));
  }
  if (!node.find("group_size") && rule.method == "onebit") rule.group_size = -1;
}

class Binder {
 public:
  explicit Binder(Problems& problems) : problems_(problems) {}

  void bind(const Node& root, Config& config) { section(root, "", false, config); }

  /// Where `key` stands, or else the nearest section around it.
  Place place(std::string key) const {
    for (;;) {
      if (const auto found = places_.find(key); found != places_.end()) return found->second;
      const size_t dot = key.rfind('.');
      key.resize(dot == std::string::npos ? 0 : dot);
    }
  }
  /// Whether `key` or a section around it was reported already.
  bool has_problem(std::string key) const {
    while (!bad_keys_.contains(key)) {
      if (key.empty()) return false;
      const size_t dot = key.rfind('.');
      key.resize(dot == std::string::npos ? 0 : dot);
    }
    return true;
  }

 private:
  void fail(const Node& node, const std::string& key, const std::string& message) {
    problems_.add(node.place, message);
    bad_keys_.insert(key);
  }

  template <Section S>
  void section(const Node& node, const std::string& at, bool in_list, S& out) {
    places_.emplace(at, node.place);
    if (node.kind != Node::Kind::map && node.kind != Node::Kind::null) {
      fail(node, at,
           cat(at.empty() ? "the configuration" : at,
               ": expected a section (lines of key: value, with a space after the colon), found ", node.describe()));
      return;
    }
    check_keys<S>(node, at, in_list);
    Node absent;
    absent.place = node.place;
    for_each_field<S>([&]<class T>(const Field<S, T>& row) {
      if (row.spec.list_only && !in_list) return;
      const std::string key = at.empty() ? row.key : at + "." + row.key;
      const Node* child = node.find(row.key);
      if (child) places_.emplace(key, child->place);
      if constexpr (Section<T>) {
        section(child ? *child : absent, key, false, out.*row.member);
      } else {
        if (child) value(*child, key, row.spec, out, out.*row.member);
        if constexpr (std::is_same_v<T, std::string>) {
          if (row.spec.required && (out.*row.member).empty() && !has_problem(key)) {
            fail(child ? *child : node, key, cat(key, " is missing: ", row.spec.help));
          }
        }
      }
    });
    complete(out, node);
  }

  template <Section S>
  void check_keys(const Node& node, const std::string& at, bool in_list) {
    std::vector<std::string> keys;
    for_each_field<S>([&](const auto& row) {
      if (in_list || !row.spec.list_only) keys.push_back(row.key);
    });
    std::map<std::string, const Node*> seen;
    for (const Node& child : node.children) {
      const std::string prefix = at.empty() ? "" : at + ".";
      if (const auto [first, fresh] = seen.emplace(child.key, &child); !fresh) {
        fail(child, prefix + child.key,
             cat("duplicate key ", quote(prefix + child.key), "; first given at ", first->second->place.text(),
                 "; keep one"));
      } else if (std::find(keys.begin(), keys.end(), child.key) == keys.end()) {
        fail(child, prefix + child.key,
             cat("unknown key ", quote(prefix + child.key), suggest_key(child.key, at, keys)));
      }
    }
  }

  template <class Owner, Section S>
  void value(const Node& node, const std::string& key, const Spec&, Owner&, std::optional<S>& out) {
    const bool none = node.kind == Node::Kind::scalar && node.text == "none";
    if (node.kind == Node::Kind::null || none) {
      out.reset();
    } else {
      section(node, key, false, out.emplace());
    }
  }

  template <class Owner, class Item>
  void value(const Node& node, const std::string& key, const Spec& spec, Owner& owner, std::vector<Item>& out) {
    out.clear();
    for (size_t i = 0; i < node.children.size(); ++i) {
      const Node& child = node.children[i];
      const std::string item_key = cat(key, ".", i);
      places_.emplace(item_key, child.place);
      Item& item = out.emplace_back(new_item(owner, static_cast<const Item*>(nullptr)));
      if constexpr (Section<Item>) {
        section(child, item_key, true, item);
      } else {
        value(child, item_key, spec, owner, item);
      }
    }
  }

  template <class Owner, class T>
  void value(const Node& node, const std::string& key, const Spec& spec, Owner&, T& out) {
    const std::string problem = read_value(node, spec, out);
    if (!problem.empty()) fail(node, key, key + ": " + problem);
  }

  Problems& problems_;
  std::map<std::string, Place> places_;  // of dotted keys
  std::set<std::string> bad_keys_;       // already reported: no further checks of them
};

}  // namespace satin::config
