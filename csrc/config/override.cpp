#include "config/override.h"

#include <algorithm>
#include <charconv>

#include "config/fields.h"
#include "core/error.h"

namespace satin::config {
namespace {

constexpr size_t kMaxKeyParts = 16;

std::vector<std::string> split(const std::string& dotted_key) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= dotted_key.size();) {
    const size_t dot = std::min(dotted_key.find('.', begin), dotted_key.size());
    parts.push_back(dotted_key.substr(begin, dot - begin));
    begin = dot + 1;
  }
  return parts;
}

bool is_index(const std::string& text) { return !text.empty() && text.find_first_not_of("0123456789") == text.npos; }

Node make(Node::Kind kind, const Node& like) {
  Node node;
  node.kind = kind;
  node.place = like.place;
  return node;
}

/// Wraps `node` into a new parent that takes its place; the caller gives the child its key.
void wrap(Node& node, Node::Kind kind, const char* child_key) {
  Node parent = make(kind, node);
  parent.key = std::move(node.key);
  node.key = child_key;
  parent.children.push_back(std::move(node));
  node = std::move(parent);
}

template <Section S>
void expand_section(Node& node);

template <Section S>
void expand(Node& node, const S*) {
  expand_section<S>(node);
}
template <Section S>
void expand(Node& node, const std::optional<S>*) {
  expand_section<S>(node);
}
template <class Item>
void expand(Node& node, const std::vector<Item>*) {
  if (node.kind == Node::Kind::null) return;
  if (node.kind != Node::Kind::list) wrap(node, Node::Kind::list, "");
  if constexpr (Section<Item>) {
    for (Node& item : node.children) {
      if (item.kind == Node::Kind::scalar) {
        for_each_field<Item>([&](const auto& row) {
          if (row.spec.shorthand && item.kind == Node::Kind::scalar) wrap(item, Node::Kind::map, row.key);
        });
      }
      expand_section<Item>(item);
    }
  }
}
template <class T>
void expand(Node&, const T*) {}

template <Section S>
void expand_section(Node& node) {
  for_each_field<S>([&]<class T>(const Field<S, T>& row) {
    if (Node* child = node.find(row.key)) expand(*child, static_cast<const T*>(nullptr));
  });
}

}  // namespace

void expand_shorthands(Node& root) { expand_section<Config>(root); }

void set_value(Node& root, const std::string& dotted_key, Node value, Problems& problems) {
  const auto fail = [&](const std::string& message) { problems.add(value.place, message); };
  const auto parts = split(dotted_key);
  if (parts.size() > kMaxKeyParts) return fail(cat("a key of at most ", kMaxKeyParts, " parts was expected"));
  Node* node = &root;
  std::string at;
  for (const std::string& part : parts) {
    if (part.empty()) return fail(cat("expected dotted.key=value, found the key ", quote(dotted_key)));
    const bool absent = node->kind == Node::Kind::null || (node->kind == Node::Kind::scalar && node->text == "none");
    if (absent) {
      Node fresh = make(is_index(part) ? Node::Kind::list : Node::Kind::map, value);
      fresh.key = node->key;
      *node = std::move(fresh);
    }
    if (node->kind == Node::Kind::scalar) return fail(cat("'", at, "' is a plain value and has no key ", quote(part)));
    if (node->kind == Node::Kind::list) {
      const size_t size = node->children.size();
      size_t index = 0;
      const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
      if (error != std::errc{} || end != part.data() + part.size() || index > size) {
        return fail(cat("'", at, "' is a list of ", size, ": expected an index from 0 to ", size, " (", size,
                        " appends), found ", quote(part)));
      }
      if (index == size) node->children.push_back(make(Node::Kind::null, value));
      node = &node->children[index];
    } else if (Node* child = node->find(part)) {
      node = child;
    } else {
      node->children.push_back(make(Node::Kind::null, value));
      node = &node->children.back();
      node->key = part;
    }
    at += (at.empty() ? "" : ".") + part;
  }
  value.key = node->key;
  *node = std::move(value);
}

}  // namespace satin::config
