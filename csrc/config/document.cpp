#include "config/document.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <tuple>

#include "core/error.h"

namespace satin::config {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxNodes = 100'000;
constexpr size_t kMaxProblems = 50;
constexpr size_t kMaxQuoted = 80;

size_t count(const Node& node) {
  size_t total = 1;
  for (const Node& child : node.children) total += count(child);
  return total;
}

/// Builds the tree; refuses what a configuration never needs before the parser recurses into it.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const Source& source) : source_(source) { root_.place.source = &source; }
  Node take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(Node::Kind::null, mark), mark, anchor);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    Node node = make(Node::Kind::scalar, mark);
    node.text = value;
    node.quoted = tag == "!";
    add(std::move(node), mark, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw YAML::ParserException(mark, "an alias inside the value that it stands for");
    grow(count(found->second), mark);
    add(found->second, mark, YAML::anchor_t{});
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Node::Kind::list, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Node::Kind::map, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    Node node;
    YAML::Mark mark;
    YAML::anchor_t anchor;
    bool has_key = false;
    std::string key = {};
    Place key_place = {};
  };

  Node make(Node::Kind kind, const YAML::Mark& mark) {
    grow(1, mark);
    Node node;
    node.kind = kind;
    node.place = {&source_, mark.line + 1};
    return node;
  }
  void grow(size_t more, const YAML::Mark& mark) {
    num_nodes_ += more;
    if (num_nodes_ > kMaxNodes) throw YAML::ParserException(mark, cat("more than ", kMaxNodes, " values"));
  }
  static void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") throw YAML::ParserException(mark, "tags (!...) are not supported");
  }
  void open(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    check_tag(mark, tag);
    if (frames_.size() >= kMaxDepth) throw YAML::ParserException(mark, cat("nested more than ", kMaxDepth, " deep"));
    frames_.push_back({.node = make(kind, mark), .mark = mark, .anchor = anchor});
  }
  void close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    add(std::move(frame.node), frame.mark, frame.anchor);
  }
  void add(Node node, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor) anchors_[anchor] = node;
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& parent = frames_.back();
    if (parent.node.kind == Node::Kind::map && !parent.has_key) {
      if (node.kind != Node::Kind::scalar) throw YAML::ParserException(mark, "a key must be a plain name");
      parent.has_key = true;
      parent.key = std::move(node.text);
      parent.key_place = node.place;
      return;
    }
    if (parent.node.kind == Node::Kind::map) {
      node.key = std::move(parent.key);
      node.place = parent.key_place;
      parent.has_key = false;
    }
    parent.node.children.push_back(std::move(node));
  }

  const Source& source_;
  Node root_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, Node> anchors_;
  size_t num_nodes_ = 0;
};

bool is_utf8(const std::string& text) {
  try {
    (void)nlohmann::json(text).dump();  // strict about UTF-8
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

/// What yaml-cpp reads without a word: tabs as indentation, control characters, broken UTF-8.
bool check_text(std::string_view text, const Source& source, Problems& problems) {
  if (text.size() > kMaxBytes) {
    problems.add({&source}, cat("a configuration of at most ", kMaxBytes, " bytes was expected, found ", text.size(),
                                "; is it the right file?"));
    return false;
  }
  bool good = true;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    std::string problem;
    const size_t content = line.find_first_not_of(" \t");
    if (content != line.npos && line[content] != '#' && line.find('\t') < content) {
      problem = "a tab in the indentation; YAML is indented with spaces only";
    }
    for (const unsigned char c : line) {
      if (c < 0x20 && c != '\t' && c != '\r') problem = cat("control character ", int{c}, "; not a text file?");
    }
    if (!is_utf8(line)) problem = "not valid UTF-8; save the file as UTF-8";
    if (problem.empty()) continue;
    problems.add({&source, number}, problem);
    good = false;
  }
  return good;
}

}  // namespace

const Node* Node::find(std::string_view name) const {
  if (kind != Kind::map) return nullptr;
  for (const Node& child : children) {
    if (child.key == name) return &child;
  }
  return nullptr;
}

Node* Node::find(std::string_view name) { return const_cast<Node*>(std::as_const(*this).find(name)); }

std::string Node::describe() const {
  switch (kind) {
    case Kind::null:
      return "nothing";
    case Kind::list:
      return "a list";
    case Kind::map:
      return "a section with keys of its own";
    case Kind::scalar:
      break;
  }
  return quote(text) + (quoted ? " in quotes" : "");
}

std::string Place::text() const {
  if (source->override_number > 0) return source->name;
  return column > 0 ? cat(source->name, ":", line, ":", column) : cat(source->name, ":", line);
}

void Problems::throw_if_any(const std::string& name) const {
  if (problems_.empty()) return;
  auto sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return std::tuple(a.place.source->override_number, a.place.line) <
           std::tuple(b.place.source->override_number, b.place.line);
  });
  std::string text = cat(name, " has ", sorted.size(), sorted.size() == 1 ? " problem:" : " problems:");
  for (size_t i = 0; i < sorted.size() && i < kMaxProblems; ++i) {
    text += "\n  " + sorted[i].place.text() + ": " + sorted[i].message;
  }
  if (sorted.size() > kMaxProblems) text += cat("\n  and ", sorted.size() - kMaxProblems, " more");
  throw UserError(text);
}

std::optional<Node> parse_document(std::string_view text, const Source& source, Problems& problems) {
  if (!check_text(text, source, problems)) return std::nullopt;
  try {
    // The comment at the end makes yaml-cpp notice a quote that is never closed; after white space it does not.
    std::istringstream stream(std::string(text) + (text.ends_with('\n') ? "#" : "\n#"));
    YAML::Parser parser(stream);
    Builder builder(source), rest(source);
    parser.HandleNextDocument(builder);
    if (parser.HandleNextDocument(rest)) {
      problems.add(rest.take().place, "one YAML document was expected, found a second one; is the indentation right?");
      return std::nullopt;
    }
    return builder.take();
  } catch (const YAML::Exception& error) {
    Place place{&source};
    if (!error.mark.is_null()) place = {&source, error.mark.line + 1, error.mark.column + 1};
    problems.add(place,
                 "not valid YAML: " + error.msg +
                     (error.msg == YAML::ErrorMsg::UNKNOWN_ANCHOR ? "; put a text that begins with * in quotes" : ""));
    return std::nullopt;
  }
}

std::string quote(std::string_view text) {
  if (text.size() <= kMaxQuoted) return cat("'", text, "'");
  size_t end = kMaxQuoted;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;  // not inside a UTF-8 character
  return cat("'", text.substr(0, end), "...'");
}

}  // namespace satin::config
