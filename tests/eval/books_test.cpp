// The real teacher against transformers' figures (reference.json), on few windows; `scripts/verify-books` runs all of
// them.
#include <nlohmann/json.hpp>

#include "eval/corpus.h"
#include "eval/tasks.h"
#include "io/pretrained.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

config::DataSource gsm8k() {
  config::DataSource source;
  source.path = test::shared_dir() / "data/gsm8k-test.jsonl";
  source.template_ = "Question: {question}\nAnswer: {answer}";
  return source;
}

TEST(Books, AnnotationsAreAllFound) {
  SATIN_NEEDS_SHARED();
  size_t total = 0;
  for (const auto& document : read_documents(gsm8k())) total += find_annotations(document).size();
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

TEST(Books, FirstAnnotationsAreMostlyRight) {
  SATIN_NEEDS_SHARED();
  const auto model = test::shared_dir() / "models/books-29m";
  const auto decoder = io::load_pretrained(model, nn::dense_linear_factory(), {});
  const Annotations result = annotations(*decoder, tokenizer::Tokenizer::load(model), read_documents(gsm8k(), 60));
  EXPECT_NEAR(static_cast<double>(result.exact) / static_cast<double>(result.total), .863, .08);  // 3 deviations of 180
}

TEST(Books, PerplexityIsTransformers) {
  SATIN_NEEDS_SHARED();
  SATIN_NEEDS_PYTHON("transformers");
  test::TempDir dir;
  const auto model = test::shared_dir() / "models/books-29m";
  const auto made = test::run_python("eval/books_oracle.py " + model.string() + " " + gsm8k().path + " 4 512 " +
                                     (dir / "nll.json").string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  const auto decoder = io::load_pretrained(model, nn::dense_linear_factory(), {});
  const Perplexity ours =
      perplexity(*decoder, read_tokens(gsm8k(), tokenizer::Tokenizer::load(model), 4 * 512), 512, 4);
  EXPECT_NEAR(ours.nll, nlohmann::json::parse(test::read_file(dir / "nll.json"))["nll"].get<double>(), 2e-5);
}

}  // namespace
}  // namespace satin::eval
