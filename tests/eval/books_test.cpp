// The real teacher against transformers' figures (reference.json), on few windows; `scripts/verify-books` runs all of
// them.
#include <nlohmann/json.hpp>

#include "eval/corpus.h"
#include "eval/tasks.h"
#include "io/pretrained.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

TEST(Books, AnnotationsAreAllFound) {
  SATIN_NEEDS_SHARED();
  config::DataSource source;
  source.path = test::shared_dir() / "data/gsm8k-test.jsonl";
  source.template_ = "Question: {question}\nAnswer: {answer}";
  size_t total = 0;
  for (const auto& document : read_documents(source)) total += find_annotations(document).size();
  EXPECT_EQ(total, 4282u);  // reference.json
}

TEST(Books, TokensOfEachTextAreTheReferences) {
  SATIN_NEEDS_SHARED();
  const auto tokenizer = tokenizer::Tokenizer::load(test::shared_dir() / "models/books-29m");
  config::DataSource source;
  source.path = test::shared_dir() / "data/wikitext2-raw-test.txt";
  EXPECT_EQ(read_tokens(source, tokenizer).size() / 1024, 382u);
  source.path = test::shared_dir() / "data/books-valid.jsonl";
  EXPECT_EQ(read_tokens(source, tokenizer).size() / 1024, 377u);
}

TEST(Books, FirstAnnotationsAndPerplexityAreClose) {
  SATIN_NEEDS_SHARED();
  const auto model = test::shared_dir() / "models/books-29m";
  const auto tokenizer = tokenizer::Tokenizer::load(model);
  const auto decoder = io::load_pretrained(model, nn::dense_linear_factory(), {});
  config::DataSource source;
  source.path = test::shared_dir() / "data/gsm8k-test.jsonl";
  source.template_ = "Question: {question}\nAnswer: {answer}";
  const Annotations result = annotations(*decoder, tokenizer, read_documents(source, 60));
  EXPECT_NEAR(static_cast<double>(result.exact) / static_cast<double>(result.total), .863,
              .08);  // 3 sigma of 180 annotations
  const Perplexity valid = perplexity(*decoder, read_tokens(source, tokenizer, 20 * 1024), 1024, 8);
  EXPECT_NEAR(valid.perplexity(), 12.59, 1.5);
}

}  // namespace
}  // namespace satin::eval
