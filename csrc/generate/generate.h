// Autoregressive text with a KV cache.
#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "generate/sampler.h"
#include "models/decoder.h"
#include "tokenizer/tokenizer.h"

namespace satin::generate {

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  SamplingOptions sampling = {};
  int64_t greedy_first = 0;          ///< new tokens that are the most likely ones before sampling begins
  int64_t num_ids = 0;               ///< ids that may come; 0: all that the model has (more than the tokenizer, padded)
  std::vector<uint64_t> seeds = {};  ///< of each prompt's draws; empty: sampling.seed of all
  std::vector<int64_t> stop_ids = {};  ///< generation ends with any of these (it is part of the ids); see stop_ids()
};

struct Generated {
  std::vector<int32_t> ids;  ///< new tokens only
  std::string text;          ///< what they add to the prompt's text, special tokens dropped
  bool stopped = false;      ///< by a stop id; otherwise by max_new_tokens or the model's context length
};

/// Every end-of-sequence id that the model's config (a list there in Llama 3) or the tokenizer names.
std::vector<int64_t> stop_ids(const models::ModelConfig& config, const tokenizer::Tokenizer& tokenizer);

/// Continues `prompt` (ids, with BOS if the model wants one). on_text receives the text as it grows, never a part of a
/// UTF-8 character. Throws UserError on an empty prompt, one longer than max_position_embeddings, ids outside the
/// vocabulary and bad options.
Generated generate(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& on_text = {});

/// Several prompts at once, without streaming: each is continued as it would be alone (its own positions, cache,
/// draws), while matrix products are of all of them together.
std::vector<Generated> generate(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer,
                                const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options);

/// The tokens alone. on_token is called with each, and returning false ends generation.
Generated generate_ids(models::Decoder& decoder, const std::vector<int32_t>& prompt, const GenerateOptions& options,
                       const std::function<bool(int32_t)>& on_token = {});
/// The same of several prompts: on_token has the prompt's number first, and returning false ends that one.
std::vector<Generated> generate_ids(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts,
                                    const GenerateOptions& options,
                                    const std::function<bool(size_t, int32_t)>& on_token = {});

}  // namespace satin::generate
