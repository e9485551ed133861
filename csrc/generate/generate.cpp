#include "generate/generate.h"

#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "generate/text_stream.h"

namespace satin::generate {

std::vector<int64_t> stop_ids(const models::ModelConfig& config, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> ids = config.eos_token_ids;
  if (tokenizer.eos_id() >= 0 && !std::count(ids.begin(), ids.end(), tokenizer.eos_id()))
    ids.push_back(tokenizer.eos_id());
  return ids;
}

Generated generate_ids(models::Decoder& decoder, const std::vector<int32_t>& prompt, const GenerateOptions& options,
                       const std::function<bool(int32_t)>& on_token) {
  check(options.sampling);
  if (options.max_new_tokens < 0)
    throw UserError(cat("max_new_tokens must be 0 or more, found ", options.max_new_tokens));
  if (prompt.empty()) throw UserError("the prompt has no tokens: give some text, or a tokenizer with a BOS token");
  const int64_t context = decoder.config().max_position_embeddings, prompt_length = static_cast<int64_t>(prompt.size());
  if (prompt_length > context)
    throw UserError(cat("the prompt has ", prompt_length, " tokens, but the model's context holds ", context,
                        " (max_position_embeddings)"));

  const at::NoGradGuard no_grad;
  models::KvCache cache;
  Generated out;
  at::Tensor input = at::tensor(prompt, at::kInt).to(at::kLong).unsqueeze(0);
  // The last token that fits into the context needs no room in the cache for itself.
  const int64_t num_new = std::min(options.max_new_tokens, context - prompt_length + 1);
  for (int64_t step = 0; step < num_new; ++step) {
    const at::Tensor last = decoder.hidden(input, {.cache = &cache}).select(1, -1);
    input = sample(decoder.logits(last), options.sampling, step).unsqueeze(1);
    const int64_t id = input.item<int64_t>();
    out.ids.push_back(static_cast<int32_t>(id));
    out.stopped = std::count(options.stop_ids.begin(), options.stop_ids.end(), id) > 0;
    if ((on_token && !on_token(out.ids.back())) || out.stopped) break;
  }
  return out;
}

Generated generate(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer, const std::vector<int32_t>& prompt,
                   const GenerateOptions& options, const std::function<void(std::string_view)>& on_text) {
  TextStream stream(tokenizer, prompt);
  std::string text;
  const auto give = [&](const std::string& piece) {
    text += piece;
    if (on_text && !piece.empty()) on_text(piece);
  };
  Generated out = generate_ids(decoder, prompt, options, [&](int32_t id) {
    give(stream.push(id));
    return true;
  });
  give(stream.finish());
  out.text = text;
  return out;
}

}  // namespace satin::generate
