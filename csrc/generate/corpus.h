// Text that a model makes up by itself, to calibrate or train on where there is no data: a token drawn at random, then
// the model's continuation, its first tokens greedy so that the text begins plausibly, the rest sampled so that it
// varies. Source: Liu et al. 2023 (LLM-QAT, arXiv 2305.17888), section 3.1.
#pragma once
#include <functional>
#include <span>

#include "generate/generate.h"

namespace satin::generate {

struct CorpusOptions {
  int64_t num_texts = 1;
  GenerateOptions generate = {.max_new_tokens = 512, .sampling = {.temperature = 1}, .greedy_first = 4};
  int64_t texts_at_once = 64;  ///< changes no text but for the rounding of products
};

/// Hands each text's ids to `add`, in order: BOS where the tokenizer has one, the drawn token (one with text),
/// what follows, the stop token included where one came. Which token starts a text and its draws depend on
/// generate.sampling.seed and the text's number alone. Throws UserError, InterruptedError.
void generate_corpus(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer, const CorpusOptions& options,
                     const std::function<void(std::span<const int32_t>)>& add);

}  // namespace satin::generate
