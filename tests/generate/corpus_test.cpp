// Texts of a model's own: how they begin, and that each depends on its number alone.
#include "generate/corpus.h"

#include <set>

#include "io/pretrained.h"
#include "support/test_support.h"

namespace satin::generate {
namespace {

using Texts = std::vector<std::vector<int32_t>>;

class Corpus : public testing::Test {
 protected:
  Corpus()
      : path(test::source_dir() / "configs/quickstart/teacher"),
        tokenizer(tokenizer::Tokenizer::load(path)),
        decoder(io::load_pretrained(path, nn::dense_linear_factory(),
                                    {.master_dtype = at::kDouble, .compute_dtype = at::kDouble})) {}

  Texts texts(const CorpusOptions& options) {
    Texts found;
    generate_corpus(*decoder, tokenizer, options,
                    [&](std::span<const int32_t> ids) { found.emplace_back(ids.begin(), ids.end()); });
    return found;
  }
  static CorpusOptions options(int64_t num_texts) {
    CorpusOptions made{.num_texts = num_texts};
    made.generate.max_new_tokens = 12;
    return made;
  }

  std::filesystem::path path;
  tokenizer::Tokenizer tokenizer;
  std::unique_ptr<models::Decoder> decoder;
};

TEST_F(Corpus, BeginsAtRandomThenGreedily) {
  const Texts found = texts(options(10));
  ASSERT_EQ(found.size(), 10u);
  const size_t before = tokenizer.bos_id() >= 0 ? 1 : 0;
  std::set<int32_t> starts;
  for (const auto& ids : found) {
    if (before == 1) {
      EXPECT_EQ(ids[0], tokenizer.bos_id());
    }
    starts.insert(ids[before]);
    ASSERT_EQ(ids.size(), before + 13);
    const std::vector<int32_t> prompt(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(before) + 1);
    const auto greedy = generate_ids(*decoder, prompt, {.max_new_tokens = 12}).ids;
    const auto after = ids.begin() + static_cast<std::ptrdiff_t>(before) + 1;
    EXPECT_TRUE(std::equal(after, after + 4, greedy.begin()));
    EXPECT_FALSE(std::equal(after, after + 12, greedy.begin()));
  }
  EXPECT_GT(starts.size(), 7u);
}

TEST_F(Corpus, ATextDependsOnItsNumberAndTheSeedAlone) {
  const Texts all = texts(options(7));
  CorpusOptions other = options(5);
  other.texts_at_once = 2;
  const Texts some = texts(other);
  EXPECT_EQ(some, Texts(all.begin(), all.begin() + 5));
  other.generate.sampling.seed = 1;
  EXPECT_NE(texts(other), some);
}

/// A model may have rows beyond the tokenizer's ids: none of them comes, however likely.
TEST_F(Corpus, IdsBeyondThoseAllowedDoNotCome) {
  const std::vector<int32_t> prompt{10};
  const int32_t most = generate_ids(*decoder, prompt, {.max_new_tokens = 1}).ids[0];
  const auto ids = generate_ids(*decoder, prompt, {.max_new_tokens = 12, .num_ids = most}).ids;
  for (const int32_t id : ids) EXPECT_LT(id, most);
}

TEST_F(Corpus, EqualPromptsHaveDrawsOfTheirOwn) {
  GenerateOptions options{.max_new_tokens = 12, .sampling = {.temperature = 1}, .seeds = {3, 4, 3}};
  const std::vector<std::vector<int32_t>> prompts(3, {10});
  const auto found = generate_ids(*decoder, prompts, options);
  EXPECT_EQ(found[0].ids, found[2].ids);
  EXPECT_NE(found[0].ids, found[1].ids);
}

}  // namespace
}  // namespace satin::generate
