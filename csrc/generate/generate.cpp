#include "generate/generate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "generate/continuation.h"
#include "generate/text_stream.h"

namespace satin::generate {

std::vector<int64_t> stop_ids(const models::ModelConfig& config, const tokenizer::Tokenizer& tokenizer) {
  std::vector<int64_t> ids = config.eos_token_ids;
  if (tokenizer.eos_id() >= 0 && !std::count(ids.begin(), ids.end(), tokenizer.eos_id()))
    ids.push_back(tokenizer.eos_id());
  return ids;
}

namespace {

/// A prompt being continued.
struct Sequence {
  size_t number;
  int64_t num_new;  ///< at most
};

/// How many tokens may follow. Throws UserError.
int64_t room_after(const std::vector<int32_t>& prompt, const models::ModelConfig& config, int64_t max_new_tokens) {
  if (prompt.empty()) throw UserError("the prompt has no tokens: give some text, or a tokenizer with a BOS token");
  const int64_t context = config.max_position_embeddings, prompt_length = static_cast<int64_t>(prompt.size());
  if (prompt_length > context)
    throw UserError(cat("the prompt has ", prompt_length, " tokens, but the model's context holds ", context,
                        " (max_position_embeddings)"));
  // The last token that fits into the context needs no room in the cache for itself.
  return std::min(max_new_tokens, context - prompt_length + 1);
}

}  // namespace

std::vector<Generated> generate_ids(models::Decoder& decoder, const std::vector<std::vector<int32_t>>& prompts,
                                    const GenerateOptions& options,
                                    const std::function<bool(size_t, int32_t)>& on_token) {
  check(options.sampling);
  if (options.max_new_tokens < 0)
    throw UserError(cat("max_new_tokens must be 0 or more, found ", options.max_new_tokens));
  SATIN_CHECK(options.seeds.empty() || options.seeds.size() == prompts.size(), options.seeds.size(), " seeds");
  std::vector<Sequence> open;
  std::vector<std::vector<int32_t>> texts;
  int64_t most_new = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t num_new = room_after(prompts[i], decoder.config(), options.max_new_tokens);
    most_new = std::max(most_new, num_new);
    if (num_new == 0) continue;
    open.push_back({i, num_new});
    texts.push_back(prompts[i]);
  }
  std::vector<Generated> out(prompts.size());
  if (open.empty()) return out;

  const at::NoGradGuard no_grad;
  auto [logits, rest] = begin(decoder, texts, most_new);
  for (int64_t step = 0;; ++step) {
    std::vector<at::Tensor> drawn;  // each by itself: a draw depends on its row
    for (int64_t row = 0; row < logits.size(0); ++row) {
      SamplingOptions sampling = options.sampling;
      if (step < options.greedy_first) sampling.temperature = 0;
      if (!options.seeds.empty()) sampling.seed = options.seeds[open[static_cast<size_t>(row)].number];
      const at::Tensor of_row = logits.narrow(0, row, 1);
      drawn.push_back(sample(options.num_ids > 0 ? of_row.narrow(1, 0, options.num_ids) : of_row, sampling, step));
    }
    at::Tensor next = at::cat(drawn);
    const at::Tensor ids = next.cpu();
    std::vector<Sequence> still_open;
    std::vector<int64_t> places;
    for (size_t row = 0; row < open.size(); ++row) {
      const int64_t id = ids[static_cast<int64_t>(row)].item<int64_t>();
      Generated& of = out[open[row].number];
      of.ids.push_back(static_cast<int32_t>(id));
      of.stopped = std::count(options.stop_ids.begin(), options.stop_ids.end(), id) > 0;
      const bool wanted = !on_token || on_token(open[row].number, of.ids.back());
      if (!wanted || of.stopped || step + 1 == open[row].num_new) continue;
      places.push_back(static_cast<int64_t>(row));
      still_open.push_back(open[row]);
    }
    if (still_open.empty()) return out;
    if (still_open.size() < open.size()) {
      rest->keep(places);
      next = next.index_select(0, at::tensor(places, at::kLong).to(next.device()));
      open = std::move(still_open);
    }
    logits = rest->next(next);
  }
}

Generated generate_ids(models::Decoder& decoder, const std::vector<int32_t>& prompt, const GenerateOptions& options,
                       const std::function<bool(int32_t)>& on_token) {
  const auto of_one = [&](size_t, int32_t id) { return !on_token || on_token(id); };
  return generate_ids(decoder, std::vector<std::vector<int32_t>>{prompt}, options, of_one).front();
}

std::vector<Generated> generate(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer,
                                const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options) {
  std::vector<Generated> all = generate_ids(decoder, prompts, options);
  for (size_t i = 0; i < all.size(); ++i) {
    TextStream stream(tokenizer, prompts[i]);
    for (const int32_t id : all[i].ids) all[i].text += stream.push(id);
    all[i].text += stream.finish();
  }
  return all;
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
