#include "train/validation.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "data/text_source.h"
#include "eval/corpus.h"
#include "eval/protocol.h"

namespace satin::train {

Validation::Validation(const config::Config& config, const tokenizer::Tokenizer& tokenizer)
    : sequence_length_(config.eval.sequence_length), limit_(config.eval.limit) {
  const size_t max_tokens = limit_ > 0 ? static_cast<size_t>(limit_ * sequence_length_) : 0;
  for (const auto& source : config.data.valid) {
    texts_.push_back({data::source_name(source), eval::documents_protocol(source),
                      eval::read_tokens(source, tokenizer, max_tokens)});
    if (texts_.back().tokens.size() < 2)
      throw UserError(
          cat("data.valid: expected at least 2 tokens in ", source.path, ", found ", texts_.back().tokens.size()));
  }
}

nlohmann::json Validation::evaluate(models::Decoder& decoder, const std::string& label,
                                    dist::Communicator& ranks) const {
  nlohmann::json results = nlohmann::json::object();
  for (const Text& text : texts_) {
    const eval::Perplexity result = eval::perplexity(decoder, text.tokens, sequence_length_, limit_, {}, ranks);
    results[text.name] = eval::to_json(result, decoder, text.documents);
    log_info(cat(label, ": perplexity of ", text.name, " ", fixed(result.perplexity(), 3), " (", result.num_windows,
                 " windows of ", sequence_length_, ")"));
  }
  return results;
}

}  // namespace satin::train
