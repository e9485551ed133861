#include "generate/corpus.h"

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/random.h"

namespace satin::generate {
namespace {

constexpr uint64_t kStart = 1, kDraws = 2;  // streams of random numbers

/// Ids of tokens with a text of their own.
std::vector<int32_t> possible_starts(const tokenizer::Tokenizer& tokenizer) {
  std::vector<int32_t> found;
  const std::vector<int32_t>& special = tokenizer.special_ids();
  for (int32_t id = 0; id < static_cast<int32_t>(tokenizer.vocab_size()); ++id)
    if (!std::ranges::binary_search(special, id) && !tokenizer.decode({id}).empty()) found.push_back(id);
  if (found.empty()) throw UserError("the tokenizer has no token that a text could begin with");
  return found;
}

}  // namespace

void generate_corpus(models::Decoder& decoder, const tokenizer::Tokenizer& tokenizer, const CorpusOptions& options,
                     const std::function<void(std::span<const int32_t>)>& add) {
  if (options.num_texts < 1) throw UserError(cat("expected at least one text, found ", options.num_texts));
  const std::vector<int32_t> starts = possible_starts(tokenizer);
  for (int64_t first = 0; first < options.num_texts; first += options.texts_at_once) {
    const int64_t count = std::min(options.texts_at_once, options.num_texts - first);
    std::vector<std::vector<int32_t>> prompts;
    GenerateOptions generate = options.generate;
    generate.num_ids = static_cast<int64_t>(tokenizer.vocab_size());
    generate.seeds.clear();
    for (int64_t i = first; i < first + count; ++i) {
      const auto number = static_cast<uint64_t>(i);
      const uint64_t seed = options.generate.sampling.seed;
      const int32_t start = starts[to_index(counter_hash({seed, number, kStart}), starts.size())];
      prompts.push_back(tokenizer.bos_id() >= 0 ? std::vector<int32_t>{tokenizer.bos_id(), start}
                                                : std::vector<int32_t>{start});
      generate.seeds.push_back(counter_hash({seed, number, kDraws}));
    }
    const auto continued = generate_ids(decoder, prompts, generate, [&](size_t, int32_t) {
      if (const int signal = interrupt_signal()) throw InterruptedError(cat("stopped by signal ", signal));
      return true;
    });
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].insert(prompts[i].end(), continued[i].ids.begin(), continued[i].ids.end());
      add(prompts[i]);
    }
    progress(cat("texts: ", first + count, " of ", options.num_texts));
  }
  end_progress();
}

}  // namespace satin::generate
