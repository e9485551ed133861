// What is not supported or malformed is named, and never crashes.
#include "core/error.h"
#include "support/test_support.h"
#include "tokenizer/tokenizer.h"

namespace satin::tokenizer {
namespace {

const std::string kSmallModel = R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]})";

struct Case {
  std::string name, json, message;
};

class Malformed : public testing::TestWithParam<Case> {};

TEST_P(Malformed, IsAUserErrorThatNamesIt) {
  try {
    Tokenizer::parse(GetParam().json, "dir/tokenizer.json");
    FAIL() << "expected a UserError";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(GetParam().message), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("dir/tokenizer.json"), std::string::npos) << error.what();
  }
}

std::string with(const std::string& component) { return "{" + component + "," + kSmallModel + "}"; }
std::string split(const std::string& pattern) {
  return with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + pattern +
              R"("},"behavior":"Isolated","invert":false})");
}
std::string model(const std::string& fields) { return R"({"model":{"type":"BPE",)" + fields + "}}"; }
std::string nested(const std::string& key, const std::string& list) {
  std::string open, close;
  for (int i = 0; i < 200; ++i) open += R"({"type":"Sequence",")" + list + "\":[", close += "]}";
  return with("\"" + key + "\":" + open + close);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, Malformed,
    testing::Values(
        Case{"Empty", "", "not valid JSON"},
        Case{"Truncated", R"({"model":{"type":"BPE","vocab":{"a")", "not valid JSON"},
        Case{"BadUtf8", "{\"model\":\"\xff\"}", "not valid JSON"}, Case{"NotAnObject", "[]", "expected an object"},
        Case{"NoModel", "{}", "\"model\" is missing"},
        Case{"Unigram", R"({"model":{"type":"Unigram"}})", "model type 'Unigram'"},
        Case{"WordPiece", R"({"model":{"type":"WordPiece","vocab":{}}})", "model type 'WordPiece'"},
        Case{"NoVocab", model(R"("merges":[])"), "\"vocab\" is missing"},
        Case{"EmptyVocab", model(R"("vocab":{},"merges":[])"), "the vocabulary is empty"},
        Case{"VocabList", model(R"("vocab":[],"merges":[])"), "model.vocab: expected an object"},
        Case{"NegativeId", model(R"("vocab":{"a":-1},"merges":[])"), "the id of 'a' is -1"},
        Case{"HugeId", model(R"("vocab":{"a":4294967295},"merges":[])"), "the id of 'a'"},
        Case{"TwoTokensOneId", model(R"("vocab":{"a":0,"b":0},"merges":[])"), "two tokens have id 0"},
        Case{"MergeUnknown", model(R"("vocab":{"a":0},"merges":["a b"])"), "needs 'b'"},
        Case{"MergeResultUnknown", model(R"("vocab":{"a":0,"b":1},"merges":[["a","b"]])"), "needs 'ab'"},
        Case{"MergeThreeParts", model(R"("vocab":{"a":0},"merges":["a a a"])"), "merge 0"},
        Case{"MergeNumber", model(R"("vocab":{"a":0},"merges":[7])"), "merge 0"},
        Case{"Prefix", model(R"("vocab":{"a":0},"merges":[],"continuing_subword_prefix":"##")"),
             "continuing_subword_prefix"},
        Case{"Dropout", model(R"("vocab":{"a":0},"merges":[],"dropout":0.1)"), "dropout"},
        Case{"Normalizer", with(R"("normalizer":{"type":"BertNormalizer"})"), "normalizer type 'BertNormalizer'"},
        Case{"NestedNormalizer",
             with(R"("normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Precompiled"}]})"),
             "normalizer.normalizers[1]: normalizer type 'Precompiled'"},
        Case{"PreTokenizer", with(R"("pre_tokenizer":{"type":"Whitespace"})"), "pre_tokenizer type 'Whitespace'"},
        Case{"AfterByteLevel",
             with(R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},{"type":"Digits"}]})"),
             "after ByteLevel"},
        Case{"Behavior", with(R"("pre_tokenizer":{"type":"Split","pattern":{"String":"x"},"behavior":"Odd"})"),
             "'Odd'"},
        Case{"Scheme", with(R"("pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"last"})"),
             "'last'"},
        Case{"Decoder", with(R"("decoder":{"type":"WordPiece"})"), "decoder type 'WordPiece'"},
        Case{"PostProcessor", with(R"("post_processor":{"type":"BertProcessing"})"),
             "post_processor type 'BertProcessing'"},
        Case{"TemplateUnknown",
             with(R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}}]})"),
             "'<s>' is not in the vocabulary"},
        Case{"AddedClash", with(R"("added_tokens":[{"id":1,"content":"<s>"}])"), "id 1"},
        Case{"AddedTwice", with(R"("added_tokens":[{"id":5,"content":"x"},{"id":5,"content":"y"}])"), "id 5"},
        Case{"DeepNormalizer", nested("normalizer", "normalizers"), "nested too deep"},
        Case{"DeepPreTokenizer", nested("pre_tokenizer", "pretokenizers"), "nested too deep"},
        Case{"DeepDecoder", nested("decoder", "decoders"), "nested too deep"},
        Case{"RegexUnclosed", split("(a"), "malformed"}, Case{"RegexVerb", split("(*ACCEPT)a"), "not supported"},
        Case{"RegexBackReference", split(R"((a)\\1)"), "not supported"},
        Case{"RegexBoundary", split(R"(\\bword)"), "not supported"},
        Case{"RegexIntersection", split(R"([a&&b])"), "not supported"},
        Case{"RegexProperty", split(R"(\\p{Emoji})"), "not supported"},
        Case{"RegexPossessive", split("a{1,3}+"), "not supported"}, Case{"RegexEnd", split(R"(a\\)"), "not supported"}),
    [](const auto& info) { return info.param.name; });

TEST(Malformed, MissingFileSaysWhatToDo) {
  test::TempDir dir;
  try {
    Tokenizer::load(dir.path());
    FAIL() << "expected a UserError";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("tokenizer.json"), std::string::npos);
  }
}

TEST(Malformed, UnknownTokenIsNamedWhenNeeded) {
  const auto tokenizer = Tokenizer::parse(model(R"("vocab":{"a":0},"merges":[],"unk_token":"<unk>")"), "x");
  EXPECT_EQ(tokenizer.encode("aa").size(), 2u);
  EXPECT_THROW(tokenizer.encode("b"), UserError);
}

TEST(Malformed, ExplodingTextEndsWithAnError) {
  std::string replaces;  // each makes every character ten
  for (int i = 0; i < 12; ++i)
    replaces += std::string(i ? "," : "") + R"({"type":"Replace","pattern":{"Regex":"a"},"content":"aaaaaaaaaa"})";
  const auto normalizer =
      Tokenizer::parse(with(R"("normalizer":{"type":"Sequence","normalizers":[)" + replaces + "]}"), "x");
  EXPECT_THROW(normalizer.encode("a"), UserError);
  const auto decoder = Tokenizer::parse(with(R"("decoder":{"type":"Sequence","decoders":[)" + replaces + "]}"), "x");
  EXPECT_THROW(decoder.decode({0}), UserError);
}

TEST(Malformed, CatastrophicPatternEndsWithAnError) {
  const auto tokenizer = Tokenizer::parse(split("(?:a|a|aa)+c"), "x");
  EXPECT_THROW(tokenizer.encode(std::string(4000, 'a') + "bc"), UserError);
}

}  // namespace
}  // namespace satin::tokenizer
