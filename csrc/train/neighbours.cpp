#include "train/neighbours.h"

#include "core/error.h"
#include "losses/schedule.h"
#include "train/models.h"

namespace satin::train {

std::vector<int64_t> special_ids(const tokenizer::Tokenizer& tokenizer, const models::ModelConfig& model) {
  std::vector<int64_t> ids(tokenizer.special_ids().begin(), tokenizer.special_ids().end());
  for (int64_t id : {int64_t{tokenizer.bos_id()}, int64_t{tokenizer.eos_id()}, model.bos_token_id, model.pad_token_id})
    if (id >= 0) ids.push_back(id);
  ids.insert(ids.end(), model.eos_token_ids.begin(), model.eos_token_ids.end());
  return ids;
}

losses::Neighbourhood build_neighbourhood(const config::Config& config, const tokenizer::Tokenizer& tokenizer,
                                          const models::ModelConfig& model) {
  return {effective_neighbourhood(config.loss), static_cast<int64_t>(tokenizer.vocab_size()),
          special_ids(tokenizer, model), config.train.seed, config.loss.chunk_tokens};
}

std::string neighbourhood_text(const config::Neighbourhood& neighbourhood, int64_t num_steps) {
  /// Steps before the first whose share is at least `least`; num_steps: there is none.
  const auto steps_before = [&](double least) {
    int64_t step = 0;
    while (step < num_steps && losses::share_at(static_cast<double>(step) / static_cast<double>(num_steps),
                                                neighbourhood.start, neighbourhood.ramp) < least)
      ++step;
    return step;
  };
  std::string text = cat("neighbours: ", 100 * neighbourhood.rate, " % of the next tokens, ");
  const double random = neighbourhood.source == "random" ? 1 : neighbourhood.random_share;
  if (random < 1)
    text += cat("of the ", neighbourhood.source, "'s best ", neighbourhood.top_k, " at temperature ",
                neighbourhood.temperature);
  if (random > 0) text += random < 1 ? cat(", ", 100 * random, " % of them random") : "any of the vocabulary";
  if (neighbourhood.placement == "branch") text += ", beside the text (branch tokens)";
  if (neighbourhood.depth > 1) text += cat(", walks of up to ", neighbourhood.depth);
  const int64_t first = steps_before(1e-300), full = steps_before(1);
  if (first == num_steps) return cat(text, ", but never in this run's ", num_steps, " steps (start, ramp)");
  if (first > 0 || full > first) text += cat(", from step ", first + 1);
  if (full > first) text += full == num_steps ? ", growing to the end" : cat(", growing until step ", full + 1);
  return text;
}

}  // namespace satin::train
