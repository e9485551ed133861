#include "tokenizer/tokenizer.h"

#include <thread>

#include "support/test_support.h"

namespace satin::tokenizer {
namespace {

// Vocabulary: a b c ab bc abc, and the byte character of a space.
const std::string kModel =
    R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5,"Ġ":6},"merges":["b c","a b","ab c","a bc"]})";

std::string json(const std::string& more = "") {
  return R"({"version":"1.0","pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},)" +
         (more.empty() ? "" : more + ",") + kModel + "}";
}

using Ids = std::vector<int32_t>;

}  // namespace

TEST(Tokenizer, MergesByRank) {
  const auto tokenizer = Tokenizer::parse(json(), "test");
  EXPECT_EQ(tokenizer.encode("abc"), Ids({5}));
  EXPECT_EQ(tokenizer.encode("ab"), Ids({3}));
  EXPECT_EQ(tokenizer.encode("aabcb bca"), Ids({0, 5, 1, 6, 4, 0}));
  EXPECT_EQ(tokenizer.encode(""), Ids());
  EXPECT_EQ(tokenizer.vocab_size(), 7);
  EXPECT_EQ(tokenizer.token_to_id("ab"), 3);
  EXPECT_EQ(tokenizer.token_to_id("zz"), -1);
  EXPECT_EQ(tokenizer.decode({0, 6, 3, 77, -1}), "a ab");
  EXPECT_EQ(tokenizer.bos_id(), -1);
}

TEST(Tokenizer, AddedTokensAndSpans) {
  const auto tokenizer = Tokenizer::parse(
      json(
          R"("added_tokens":[{"id":7,"content":"<x>","special":true},{"id":8,"content":"<x>b","special":false,"normalized":false}])"),
      "test");
  const auto spans = tokenizer.encode_with_spans("ab<x><x>bc");
  ASSERT_EQ(spans.size(), 4u);
  const int32_t ids[] = {3, 7, 8, 2};
  const size_t begins[] = {0, 2, 5, 9}, ends[] = {2, 5, 9, 10};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(spans[i].id, ids[i]);
    EXPECT_EQ(spans[i].begin, begins[i]);
    EXPECT_EQ(spans[i].end, ends[i]);
  }
  EXPECT_EQ(tokenizer.special_ids(), Ids({7}));
  EXPECT_EQ(tokenizer.decode({3, 7, 8, 2}), "ab<x>bc");
  EXPECT_EQ(tokenizer.decode({3, 7, 8, 2}, false), "ab<x><x>bc");
}

TEST(Tokenizer, CountsInvalidUtf8) {
  const auto tokenizer = Tokenizer::parse(json(), "test");
  EXPECT_EQ(tokenizer.encode("a\xff"), Ids({0}));  // U+FFFD has no bytes in this vocabulary
  EXPECT_EQ(tokenizer.encode("\xe2\x82 b"), Ids({6, 1}));
  EXPECT_EQ(tokenizer.invalid_utf8_count(), 2u);
}

TEST(Tokenizer, BosAndEosFromTheDirectory) {
  test::TempDir dir;
  const std::string added =
      R"("added_tokens":[{"id":7,"content":"<s>","special":true},{"id":8,"content":"</s>","special":true}])";
  const std::string post =
      R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}})";
  test::write_file(dir / "tokenizer.json", json(added));
  EXPECT_EQ(Tokenizer::load(dir.path()).bos_id(), -1);
  test::write_file(dir / "tokenizer.json", json(added + "," + post));
  EXPECT_EQ(Tokenizer::load(dir.path()).bos_id(), 7);
  EXPECT_TRUE(Tokenizer::load(dir.path()).adds_bos());
  EXPECT_FALSE(Tokenizer::load(dir.path()).adds_eos());
  test::write_file(dir / "config.json", R"({"bos_token_id":1,"eos_token_id":2})");
  EXPECT_EQ(Tokenizer::load(dir.path()).bos_id(), 1);
  test::write_file(dir / "generation_config.json", R"({"eos_token_id":[8,2],"bos_token_id":null})");
  EXPECT_EQ(Tokenizer::load(dir.path()).bos_id(), 1);
  EXPECT_EQ(Tokenizer::load(dir.path()).eos_id(), 8);
  test::write_file(dir / "tokenizer_config.json", R"({"bos_token":null,"eos_token":{"content":"<s>"}})");
  EXPECT_EQ(Tokenizer::load(dir.path()).bos_id(), -1);
  EXPECT_EQ(Tokenizer::load(dir.path()).eos_id(), 7);
}

TEST(Tokenizer, ManyThreadsAtOnce) {
  const auto tokenizer = Tokenizer::parse(json(), "test");
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) ASSERT_EQ(tokenizer.encode("aabcb bca").size(), 6u);
    });
  for (auto& thread : threads) thread.join();
}

TEST(Tokenizer, FingerprintNamesTheFile) {
  EXPECT_EQ(Tokenizer::parse(json(), "x").fingerprint(), Tokenizer::parse(json(), "y").fingerprint());
  EXPECT_NE(Tokenizer::parse(json(), "x").fingerprint(), Tokenizer::parse(json() + " ", "x").fingerprint());
}

}  // namespace satin::tokenizer
