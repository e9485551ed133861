// The texts that satin allocate measures a model on.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "config/schema.h"
#include "tokenizer/tokenizer.h"

namespace satin::train {

/// A document whose answer is scored.
struct Question {
  std::vector<int32_t> ids;  ///< with BOS where the model has one
  size_t first_answer;       ///< the first id that belongs to the answer
};

/// Up to `limit` documents of each source of allocate.reasoning that have an answer (allocate.answer_after). Throws
/// UserError naming a source without any.
std::vector<Question> read_questions(const config::Config& config, const tokenizer::Tokenizer& tokenizer, size_t limit);

}  // namespace satin::train
