// Unicode normalization forms and lower case.
#pragma once
#include "tokenizer/text.h"

namespace satin::tokenizer {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

/// The text in a normalization form; characters that combine keep the union of their sources.
/// Source: Unicode Standard Annex 15. Characters whose normalization data is newer than that of the `tokenizers`
/// library (Unicode 9) are left alone as it does.
Text normalize(const Text& text, UnicodeForm form);

/// The text in lower case, character by character (no special case for a final sigma).
Text lowercase(const Text& text);

/// \s and \w of Unicode Technical Standard 18 (annex C).
bool is_white_space(char32_t c);
bool is_word_character(char32_t c);

}  // namespace satin::tokenizer
