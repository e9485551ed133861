// Text of a growing list of tokens, in pieces that are whole characters.
#pragma once
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace satin::generate {

/// The pieces of all push() calls and finish() joined are what the tokens after the prompt add to the prompt's text. A
/// character whose bytes are spread over several tokens is held back until its last one.
class TextStream {
 public:
  TextStream(const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& prompt);
  /// New whole characters, often one word, perhaps none.
  std::string push(int32_t id);
  /// What is still held back (a broken character, as U+FFFD).
  std::string finish();

 private:
  std::string take(bool even_if_incomplete);
  const tokenizer::Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;  ///< some context (decoders look at neighbours), then tokens whose text is not given yet
  size_t num_given_;          ///< leading ids_ that are context
};

}  // namespace satin::generate
