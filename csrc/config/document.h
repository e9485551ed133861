// A YAML text as a tree that remembers where each value stands. yaml-cpp's own Node hides duplicate keys, may hold
// cycles and has no bounds; this one is built from its parser's events.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace satin::config {

/// One text: the file, or one override.
struct Source {
  std::string name;                 ///< "qat.yaml" or "override 2 (train.seed=1)"
  std::filesystem::path directory;  ///< where its relative paths start
  int override_number = 0;          ///< 0: the file
};

struct Place {
  const Source* source = nullptr;
  int line = 1;    ///< from 1
  int column = 0;  ///< from 1; 0: the whole line

  /// "qat.yaml:12", "qat.yaml:12:3" or "override 2 (train.seed=1)".
  std::string text() const;
};

struct Node {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  std::string key;             ///< its name, when it is a value of a map
  std::string text;            ///< scalar
  bool quoted = false;         ///< scalar written in quotes: a string whatever it looks like
  std::vector<Node> children;  ///< list items or map entries in the order of the text; duplicates are kept
  Place place;                 ///< of the key for a map entry

  const Node* find(std::string_view name) const;
  Node* find(std::string_view name);
  /// What was found, for a message: "'abc'", "a list", "a section", "nothing".
  std::string describe() const;
};

/// All problems of a configuration.
class Problems {
 public:
  void add(const Place& place, const std::string& message) { problems_.push_back({place, message}); }
  /// Throws one UserError that lists them under `name` in the order of the file and the overrides, if there are any.
  void throw_if_any(const std::string& name) const;

 private:
  struct Problem {
    Place place;
    std::string message;
  };
  std::vector<Problem> problems_;
};

/// Parses one document. On bad text (syntax, tabs, control characters, not UTF-8, too large, too deep) adds to
/// `problems` and returns nothing. An empty text is a null node. `source` must outlive the tree.
std::optional<Node> parse_document(std::string_view text, const Source& source, Problems& problems);

/// `text` in single quotes, cut to a readable length.
std::string quote(std::string_view text);

}  // namespace satin::config
