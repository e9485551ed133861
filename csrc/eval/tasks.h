// Evaluation tasks. Each result prints its protocol beside its numbers. Several ranks with the same arguments share the
// work, and each gets the result of one process (in_batches.h).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "eval/score.h"
#include "tokenizer/tokenizer.h"

namespace satin::eval {

/// Perplexity of a token stream. Protocol: documents (BOS + ids + EOS each) concatenated, non-overlapping windows of
/// `sequence_length` tokens, length - 1 predictions each, tail dropped; a text shorter than one window is one short
/// window.
struct Perplexity {
  double nll;  ///< mean natural-log loss a prediction
  int64_t num_predictions, num_windows, sequence_length;
  bool short_window;  ///< the text was shorter than one window
  double perplexity() const;
};
/// `limit`: at most so many windows (0: all). Throws UserError when there are fewer than 2 tokens.
Perplexity perplexity(models::Decoder& decoder, const std::vector<int32_t>& tokens, int64_t sequence_length,
                      int64_t limit = 0, const ScoreOptions& options = {},
                      dist::Communicator& ranks = *dist::Communicator::alone());

/// Multiple choice by log-likelihood. One question: shared context, two or more continuations, the right one's index.
struct Question {
  std::string context;  ///< may be empty
  std::vector<std::string> choices;
  size_t answer;
};
/// Reads one JSONL record: {"good", "bad"} or {"context", "choices", "answer"} (answer: an index or the choice's text).
Question parse_question(const nlohmann::json& record, const std::string& where);

struct Choice {
  int64_t num_questions = 0;
  int64_t correct = 0;            ///< the right continuation has the highest total log-likelihood
  int64_t correct_per_token = 0;  ///< ... the highest log-likelihood a token
};
Choice choice(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer, const std::vector<Question>& questions,
              const ScoreOptions& options = {}, dist::Communicator& ranks = *dist::Communicator::alone());

/// Exact matches of <<expression=result>> annotations: every token that overlaps the result must be the argmax,
/// teacher-forced, one document at a time.
struct Annotations {
  int64_t total = 0, exact = 0;
};
Annotations annotations(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer,
                        const std::vector<std::string>& documents, const ScoreOptions& options = {},
                        dist::Communicator& ranks = *dist::Communicator::alone());

/// Byte ranges of the results in `text`: group 1 of <<[^=<>]*=([^<>]*)>>, as in Python's re.finditer.
std::vector<std::pair<size_t, size_t>> find_annotations(const std::string& text);

}  // namespace satin::eval
