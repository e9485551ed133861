#include "tokenizer/split.h"

#include <algorithm>
#include <map>
#include <string>

#include "tokenizer/json_node.h"

namespace satin::tokenizer {
namespace {

struct Part {
  Range range;
  bool match;
};

void push(std::vector<Range>& out, Range range) {
  if (range.begin < range.end) out.push_back(range);
}

}  // namespace

Splitter Splitter::parse(const JsonNode& node) {
  static const std::map<std::string, SplitBehavior> behaviors{
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const JsonNode name = node.at("behavior");
  const auto behavior = behaviors.find(name.string());
  if (behavior == behaviors.end())
    name.unsupported("'" + name.string() + "'", "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
  return Splitter(Regex::parse(node.at("pattern")), behavior->second, node.boolean_or("invert", false));
}

void Splitter::apply(std::string_view text, std::vector<Range>& pieces) const {
  std::vector<Range> out;
  out.reserve(std::max(pieces.size(), text.size() / 5));
  for (const Range& piece : pieces) split(text.substr(piece.begin, piece.end - piece.begin), piece, out);
  pieces = std::move(out);
}

void Splitter::split(std::string_view text, Range piece, std::vector<Range>& out) const {
  size_t end = piece.begin;  // of what has been handed on
  if (behavior_ == SplitBehavior::kIsolated) {
    pattern_.for_each_match(text, [&](size_t match_begin, size_t match_end) {
      push(out, {end, piece.begin + match_begin});
      push(out, {piece.begin + match_begin, piece.begin + match_end});
      end = piece.begin + match_end;
    });
    push(out, {end, piece.end});
    return;
  }

  std::vector<Part> parts;
  pattern_.for_each_match(text, [&](size_t match_begin, size_t match_end) {
    const Range match{piece.begin + match_begin, piece.begin + match_end};
    if (end != match.begin) parts.push_back({{end, match.begin}, invert_});
    parts.push_back({match, !invert_});
    end = match.end;
  });
  if (end != piece.end) parts.push_back({{end, piece.end}, invert_});

  if (behavior_ == SplitBehavior::kRemoved) {
    for (const Part& part : parts)
      if (!part.match) push(out, part.range);
    return;
  }
  const bool backward = behavior_ == SplitBehavior::kMergedWithNext;
  if (backward) std::reverse(parts.begin(), parts.end());
  const size_t first = out.size();
  bool previous_match = false;
  for (const Part& part : parts) {
    const bool merge =
        behavior_ == SplitBehavior::kContiguous ? part.match == previous_match : part.match && !previous_match;
    previous_match = part.match;
    if (!merge || out.size() == first)
      out.push_back(part.range);
    else if (backward)
      out.back().begin = part.range.begin;
    else
      out.back().end = part.range.end;
  }
  if (backward) std::reverse(out.begin() + first, out.end());
  out.erase(std::remove_if(out.begin() + first, out.end(), [](Range r) { return r.begin == r.end; }), out.end());
}

}  // namespace satin::tokenizer
