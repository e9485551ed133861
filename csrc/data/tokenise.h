// Text to token files: what `satin tokenize` writes, and the cache that training reads.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/schema.h"
#include "data/text_source.h"
#include "data/token_file.h"
#include "tokenizer/tokenizer.h"

namespace satin::data {

struct TokenisedDocument {
  std::vector<int32_t>
      ids;  ///< BOS (when the tokenizer has one) + text + EOS (likewise); empty for a text without tokens
  std::vector<uint8_t> scored;  ///< one flag a token for chats; empty: all are scored
};
/// A chat's token is scored when any of its bytes belongs to an answer; EOS when the last message is an answer.
TokenisedDocument tokenise_document(const Document& document, const tokenizer::Tokenizer& tokenizer);

/// kChatMl or kLlama3Chat when the tokenizer has their markers, else kPlainChat.
std::string chat_template_for(const tokenizer::Tokenizer& tokenizer);

/// What tokenising counted, for the log.
struct TokeniseSummary {
  uint64_t num_documents = 0, num_tokens = 0;
  uint64_t num_empty_documents = 0;      ///< had no tokens: left out
  uint64_t num_unscored_documents = 0;   ///< chats without an answer: no loss comes from them
  uint64_t num_replaced_characters = 0;  ///< invalid UTF-8 that became U+FFFD, in .txt; lines with such, in .jsonl
};

/// Writes source (.jsonl, .txt, .bin) as a token file; `output` appears whole or not at all. Shows progress when it
/// takes long. In .bin a document starts at each BOS (without BOS: after each EOS; without both: it is one document).
/// Errors: UserError as TextSource's; for no tokens at all; for a chat file without any answer. InterruptedError when a
/// signal asked to stop.
TokeniseSummary tokenise_to_file(const config::DataSource& source, const tokenizer::Tokenizer& tokenizer,
                                 const std::filesystem::path& output);

/// Errors: UserError when the tokens were made with another tokenizer, or for a larger vocabulary.
void check_tokenizer(const TokenFile& file, const tokenizer::Tokenizer& tokenizer);

/// The token file of a source. A .tokens source is itself, once it is checked that it was made with this tokenizer.
/// Others are tokenised into cache_dir under a name made of their content's checksum, the tokenizer and the format, and
/// found there the next time; a damaged cache file is written again. Files up to 4 GiB are verified whole. Errors: as
/// tokenise_to_file; UserError for another tokenizer's or vocabulary's tokens.
std::filesystem::path tokenise(const config::DataSource& source, const tokenizer::Tokenizer& tokenizer,
                               const std::filesystem::path& cache_dir);

}  // namespace satin::data
