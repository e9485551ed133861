// The neighbourhood that a run walks into: from its configuration and its tokenizer, and in words.
#pragma once
#include <string>
#include <vector>

#include "config/schema.h"
#include "losses/neighbourhood.h"
#include "models/model_config.h"
#include "tokenizer/tokenizer.h"

namespace satin::train {

/// Ids that are never replaced and never drawn: the tokenizer's special ids, and what the model's config.json calls
/// begin, end and padding (tokenizers do not always flag these).
std::vector<int64_t> special_ids(const tokenizer::Tokenizer& tokenizer, const models::ModelConfig& model);

/// Throws UserError naming the key.
losses::Neighbourhood build_neighbourhood(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                          const models::ModelConfig& model);

/// A line for the log and the dry run: how many tokens, whose, and from which step of `num_steps` on.
std::string neighbourhood_text(const config::Neighbourhood& neighbourhood, int64_t num_steps);

}  // namespace satin::train
