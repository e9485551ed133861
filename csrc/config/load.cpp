#include <deque>

#include "config/bind.h"
#include "config/config.h"
#include "config/override.h"
#include "core/file.h"
#include "core/nearest.h"

namespace satin::config {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestName = 64;  // longer ones are no slips of the pen

struct Key {
  std::string section, name, known_as;
};

template <Section S>
void collect_keys(const std::string& at, std::vector<Key>& keys);

template <Section S>
void collect_children(const std::string& at, const S*, std::vector<Key>& keys) {
  collect_keys<S>(at, keys);
}
template <Section S>
void collect_children(const std::string& at, const std::optional<S>*, std::vector<Key>& keys) {
  collect_keys<S>(at, keys);
}
template <Section S>
void collect_children(const std::string& at, const std::vector<S>*, std::vector<Key>& keys) {
  collect_keys<S>(at + "[]", keys);
}
template <class T>
void collect_children(const std::string&, const T*, std::vector<Key>&) {}

template <Section S>
void collect_keys(const std::string& at, std::vector<Key>& keys) {
  for_each_field<S>([&]<class T>(const Field<S, T>& row) {
    keys.push_back({at, row.key, row.spec.known_as});
    collect_children(at.empty() ? row.key : at + "." + row.key, static_cast<const T*>(nullptr), keys);
  });
}

std::string full_name(const Key& key) { return key.section.empty() ? key.name : key.section + "." + key.name; }

/// Applies "dotted.key=value"; `source` carries its name and must outlive the tree.
void apply_override(Node& root, const std::string& text, const Source& source, Problems& problems) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    problems.add({&source}, "expected dotted.key=value, such as train.max_steps=100");
    return;
  }
  const std::string_view value_text = std::string_view(text).substr(equals + 1);
  std::optional<Node> value;
  if (value_text.starts_with('*')) {  // a glob (match=*.mlp.*); there is nothing that an alias could stand for
    value = parse_document(format_value(std::string(value_text)), source, problems);
  } else {
    value = parse_document(value_text, source, problems);
  }
  if (!value) return;
  set_value(root, text.substr(0, equals), std::move(*value), problems);
  expand_shorthands(root);
}

/// Puts the list of quantization.overrides_from before quantization.overrides, where it then stands: what is written
/// out (config.yaml) needs no other file.
void read_overrides(Node& root, std::deque<Source>& sources, Problems& problems) {
  Node* quantization = root.find("quantization");
  Node* from = quantization ? quantization->find("overrides_from") : nullptr;
  if (!from || from->kind != Node::Kind::scalar || from->text.empty()) return;
  const fs::path path = from->place.source->directory / from->text;
  if (!fs::is_regular_file(path)) {
    problems.add(from->place, cat("quantization.overrides_from: there is no file ", path.string(),
                                  "; satin allocate writes one (RUN/allocation.yaml)"));
    return;
  }
  sources.push_back({path.string(), path.parent_path()});
  std::optional<Node> list = parse_document(read_file(path), sources.back(), problems);
  if (!list) return;
  if (list->kind != Node::Kind::list) {
    problems.add(list->place,
                 cat("expected a list of overrides (- {match: ..., bits: ...}), found ", list->describe()));
    return;
  }
  from->text.clear();
  from->quoted = true;  // an empty text, not nothing
  Node* own = quantization->find("overrides");
  if (own && own->kind == Node::Kind::list) {
    own->children.insert(own->children.begin(), list->children.begin(), list->children.end());
    return;
  }
  if (own) return;  // a problem that binding reports
  list->key = "overrides";
  quantization->children.push_back(std::move(*list));
}

}  // namespace

std::string suggest_key(const std::string& name, const std::string& section, const std::vector<std::string>& siblings) {
  if (name.size() > kLongestName) return "";
  std::vector<Key> keys;
  collect_keys<Config>("", keys);
  for (const Key& key : keys) {
    const auto names = alternatives(key.known_as.c_str());
    if (std::find(names.begin(), names.end(), name) != names.end()) return cat("; here it is '", full_name(key), "'");
  }
  if (const std::string near = did_you_mean(name, siblings); !near.empty()) return near;
  std::vector<std::string> names;
  for (const Key& key : keys) names.push_back(key.name);
  const std::string elsewhere = nearest(name, names);
  for (const Key& key : keys) {
    if (key.name == elsewhere) return cat("; did you mean '", full_name(key), "'?");
  }
  std::string known;
  for (const std::string& sibling : siblings) known += (known.empty() ? "" : ", ") + sibling;
  return cat("; ", section.empty() ? "the sections are " : "its keys are ", known);
}

Config parse(std::string_view text, const std::string& name, const fs::path& directory,
             const std::vector<std::string>& overrides, Job job) {
  Problems problems;
  std::deque<Source> sources{{name, fs::absolute(directory)}};
  std::optional<Node> root = parse_document(text, sources.front(), problems);
  const bool readable = root.has_value();
  if (!readable) root.emplace();
  root->place = {&sources.front()};
  expand_shorthands(*root);
  for (size_t i = 0; i < overrides.size(); ++i) {
    const int number = static_cast<int>(i) + 1;
    sources.push_back({cat("override ", number, " (", overrides[i], ")"), fs::current_path(), number});
    apply_override(*root, overrides[i], sources.back(), problems);
  }
  if (!readable) problems.throw_if_any(name);  // nothing sensible can be said of the rest
  read_overrides(*root, sources, problems);

  Config config;
  Binder binder(problems);
  binder.bind(*root, config);
  if (std::string& output_dir = config.train.output_dir; !output_dir.empty()) {
    output_dir = fs::absolute(output_dir).string();  // the default is relative still: to the current directory
  }
  validate(config, job, [&](const std::vector<std::string>& keys, const std::string& message) {
    for (const std::string& key : keys) {
      if (binder.has_problem(key)) return;
    }
    problems.add(binder.place(keys.front()), message);
  });
  problems.throw_if_any(name);
  return config;
}

Config load(const fs::path& yaml, const std::vector<std::string>& overrides, Job job) {
  const std::string text = read_file(yaml);
  return parse(text, yaml.string(), fs::absolute(yaml).parent_path(), overrides, job);
}

}  // namespace satin::config
