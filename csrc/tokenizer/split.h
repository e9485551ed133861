// Cutting text at the matches of a pattern.
#pragma once
#include <string_view>
#include <vector>

#include "tokenizer/regex.h"

namespace satin::tokenizer {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

class Splitter {
 public:
  /// `invert` swaps matches and what is between them.
  Splitter(Regex pattern, SplitBehavior behavior, bool invert = false)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  /// A "Split" component.
  static Splitter parse(const JsonNode& node);

  /// Replaces every piece of `text` by its parts; empty ones are left out.
  void apply(std::string_view text, std::vector<Range>& pieces) const;

 private:
  void split(std::string_view text, Range piece, std::vector<Range>& out) const;
  Regex pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

}  // namespace satin::tokenizer
