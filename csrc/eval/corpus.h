// Texts that tasks read.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/schema.h"
#include "eval/tasks.h"

namespace satin::eval {

/// "FILE[:FIELD]" of the command line option `flag`: a file whose name contains ':' is taken whole when it exists.
/// A template replaces the field. Throws UserError when the file does not exist.
config::DataSource parse_data_argument(const std::string& flag, const std::string& argument,
                                       const std::string& record_template, const std::string& name);

/// The token stream of the perplexity task: BOS + ids + EOS of every document (as far as the tokenizer has them).
/// Token files are read as they are; one made with another tokenizer is refused. Stops after `max_tokens` (0: all).
std::vector<int32_t> read_tokens(const config::DataSource& source, const tokenizer::Tokenizer& tokenizer,
                                 size_t max_tokens = 0);

/// How read_tokens joins the documents of this source, in words.
std::string documents_protocol(const config::DataSource& source);

/// The documents themselves; `limit` 0: all. Throws UserError for a token file, which holds no text.
std::vector<std::string> read_documents(const config::DataSource& source, size_t limit = 0);

/// Questions of the choice task, one JSONL record each.
std::vector<Question> read_questions(const config::DataSource& source, size_t limit = 0);

}  // namespace satin::eval
