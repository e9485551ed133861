// Fuzz target: a tokenizer.json, a zero byte, and text for it. Anything but UserError is a bug. Built by scripts/fuzz
// for libFuzzer, and into tokenizer_test, which replays the corpus.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const std::string_view text = end == input.npos ? "Hello  w\xc3\xb6rld 123\n" : input.substr(end + 1);
  try {
    const auto tokenizer = satin::tokenizer::Tokenizer::parse(input.substr(0, end), "fuzz");
    const auto ids = tokenizer.encode(text);
    const auto spans = tokenizer.encode_with_spans(text);
    if (ids.size() != spans.size()) std::abort();
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != spans[i].id || ids[i] < 0 || ids[i] >= tokenizer.vocab_size()) std::abort();
      if (spans[i].begin > spans[i].end || spans[i].end > 3 * text.size()) std::abort();  // a bad byte becomes three
    }
    tokenizer.decode(ids, false);
    tokenizer.decode(ids, true);
  } catch (const satin::UserError&) {
  }
  return 0;
}
