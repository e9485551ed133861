#include "data/tokenise.h"

#include <fstream>

#include "byte_tokenizer.h"
#include "core/error.h"
#include "data/dataset.h"

namespace satin::data {
namespace {
using test::TempDir;
namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

Ids bytes_of(const std::string& text) {
  Ids ids;
  for (const unsigned char c : text) ids.push_back(c);
  return ids;
}

Ids framed(const std::string& text) {
  Ids ids = bytes_of(text);
  ids.insert(ids.begin(), kBos);
  ids.push_back(kEos);
  return ids;
}

struct Contents {
  std::vector<Ids> documents;
  std::vector<std::vector<int>> scored;
};
Contents contents(const fs::path& path) {
  const TokenFile file(path);
  file.verify();
  Contents out;
  for (uint64_t d = 0; d < file.num_documents(); ++d) {
    const uint64_t begin = file.document_start(d);
    const uint64_t end = d + 1 < file.num_documents() ? file.document_start(d + 1) : file.num_tokens();
    std::vector<int64_t> tokens(end - begin);
    file.read_tokens(begin, tokens);
    out.documents.emplace_back(tokens.begin(), tokens.end());
    out.scored.emplace_back();
    for (uint64_t i = begin; i < end; ++i) out.scored.back().push_back(file.scored(i));
  }
  return out;
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

class TokeniseTest : public testing::Test {
 protected:
  config::DataSource write(const std::string& name, const std::string& bytes) {
    test::write_file(dir_ / name, bytes);
    config::DataSource source;
    source.path = (dir_ / name).string();
    return source;
  }
  TempDir dir_;
};

TEST_F(TokeniseTest, DocumentsAreFramedByBosAndEos) {
  const auto source = write("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\": \"t\xC3\xA9\"}\n");
  const auto summary = tokenise_to_file(source, byte_tokenizer(), dir_ / "out/a.tokens");
  EXPECT_EQ(contents(dir_ / "out/a.tokens").documents, (std::vector<Ids>{framed("one"), framed("t\xC3\xA9")}));
  EXPECT_EQ(summary.num_empty_documents, 1u);
  EXPECT_EQ(summary.num_documents, 2u);
  EXPECT_EQ(summary.num_tokens, 10u);
  tokenise_to_file(source, byte_tokenizer(false), dir_ / "b.tokens");
  EXPECT_EQ(contents(dir_ / "b.tokens").documents, (std::vector<Ids>{bytes_of("one"), bytes_of("t\xC3\xA9")}));
  EXPECT_EQ(tokenise_to_file(write("c.txt", "a\xFFz"), byte_tokenizer(), dir_ / "c.tokens").num_replaced_characters,
            1u);
  EXPECT_EQ(contents(dir_ / "c.tokens").documents, std::vector<Ids>{framed("a\xEF\xBF\xBDz")});
}

TEST_F(TokeniseTest, OnlyAnswersOfChatsAreScored) {
  auto source =
      write("a.jsonl", R"({"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Yes"}]})"
                       "\n"
                       R"({"messages": [{"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]})");
  source.format = "messages";
  tokenise_to_file(source, byte_tokenizer(), dir_ / "a.tokens");
  const Contents plain = contents(dir_ / "a.tokens");
  ASSERT_EQ(plain.documents.size(), 2u);
  EXPECT_EQ(plain.documents[0], framed("<|user|>\nQ\n<|assistant|>\nYes\n"));
  std::vector<int> scored(1 + std::string("<|user|>\nQ\n<|assistant|>\n").size(), 0);
  scored.insert(scored.end(), 5, 1);  // Yes, the end of its line, EOS
  EXPECT_EQ(plain.scored[0], scored);
  scored.assign(1 + std::string("<|assistant|>\n").size(), 0);
  scored.insert(scored.end(), 2, 1);
  scored.insert(scored.end(), std::string("<|user|>\nB\n").size() + 1, 0);  // EOS follows the user: not an answer
  EXPECT_EQ(plain.scored[1], scored);

  tokenise_to_file(source, byte_tokenizer(true, {"<|im_start|>", "<|im_end|>"}), dir_ / "b.tokens");
  const Contents chatml = contents(dir_ / "b.tokens");
  Ids expected = {kBos, kFirstMarker};
  const auto add = [&](const std::string& text) {
    const Ids ids = bytes_of(text);
    expected.insert(expected.end(), ids.begin(), ids.end());
  };
  add("user\nQ");
  expected.push_back(kFirstMarker + 1);
  add("\n");
  expected.push_back(kFirstMarker);
  add("assistant\n");
  const size_t answer = expected.size();
  add("Yes");
  expected.push_back(kFirstMarker + 1);
  add("\n");
  expected.push_back(kEos);
  EXPECT_EQ(chatml.documents[0], expected);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(chatml.scored[0][i], i >= answer) << i;
  EXPECT_STREQ(
      chat_template_for(byte_tokenizer(true, {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"})).c_str(),
      kLlama3Chat);
}

TEST_F(TokeniseTest, NothingToLearnIsAnError) {
  const auto tokenizer = byte_tokenizer();
  const auto error_of = [&](const config::DataSource& source) {
    return refusal([&] { tokenise_to_file(source, tokenizer, dir_ / "out.tokens"); });
  };
  EXPECT_NE(error_of(write("a.jsonl", "{\"text\": \"\"}\n")).find("1 empty"), std::string::npos);
  EXPECT_NE(error_of(write("a.jsonl", "\n\n")).find("no document"), std::string::npos);
  auto chats = write("a.jsonl", R"({"messages": [{"role": "user", "content": "x"}, {"role": "bot", "content": "y"}]})");
  chats.format = "messages";
  EXPECT_NE(error_of(chats).find("roles found: bot, user"), std::string::npos);
  EXPECT_NE(error_of(write("a.bin", "abc")).find("odd number of bytes: 3"), std::string::npos);
  EXPECT_NE(error_of(write("a.bin", "ab\xFF\xFF")).find("token id 25185"), std::string::npos);
  EXPECT_FALSE(fs::exists(dir_ / "out.tokens"));
}

TEST_F(TokeniseTest, RawTokensAreCutIntoDocuments) {
  const auto raw = [](const Ids& ids) {
    std::string bytes;
    for (const int32_t id : ids) bytes += {static_cast<char>(id & 255), static_cast<char>(id >> 8)};
    return bytes;
  };
  const auto source = write("a.bin", raw({7, 8, kBos, 1, kEos, kBos, 2, 3, kEos, 9}));
  tokenise_to_file(source, byte_tokenizer(), dir_ / "a.tokens");
  EXPECT_EQ(contents(dir_ / "a.tokens").documents, (std::vector<Ids>{{7, 8}, {kBos, 1, kEos}, {kBos, 2, 3, kEos, 9}}));
  tokenise_to_file(source, byte_tokenizer(false), dir_ / "b.tokens");
  EXPECT_EQ(contents(dir_ / "b.tokens").documents.size(), 1u);
  // Longer than the buffer: a document that is extended.
  Ids ids = {kBos};
  ids.insert(ids.end(), (1 << 20) + 100, 5);
  ids.insert(ids.end(), {kEos, kBos, 6});
  tokenise_to_file(write("long.bin", raw(ids)), byte_tokenizer(), dir_ / "c.tokens");
  const Contents out = contents(dir_ / "c.tokens");
  ASSERT_EQ(out.documents.size(), 2u);
  EXPECT_EQ(out.documents[0].size(), (1u << 20) + 102);
  EXPECT_EQ(out.documents[1], (Ids{kBos, 6}));
}

TEST_F(TokeniseTest, TheCacheIsKeyedByContentTokenizerAndFormat) {
  const fs::path cache = dir_ / "cache";
  const auto tokenizer = byte_tokenizer();
  auto source = write("a.jsonl", "{\"text\": \"one\", \"b\": \"two\"}\n");
  const fs::path first = tokenise(source, tokenizer, cache);
  const auto written = fs::last_write_time(first);
  fs::last_write_time(source.path, fs::file_time_type::clock::now());  // touched, not changed
  EXPECT_EQ(tokenise(source, tokenizer, cache), first);
  EXPECT_EQ(fs::last_write_time(first), written);  // reused

  auto field = source;
  field.field = "b";
  auto pattern = source;
  pattern.template_ = "{text}{b}";
  const auto longer = write("b.jsonl", "{\"text\": \"one\", \"b\": \"two!\"}\n");
  const std::set<fs::path> all = {first,
                                  tokenise(field, tokenizer, cache),
                                  tokenise(pattern, tokenizer, cache),
                                  tokenise(longer, tokenizer, cache),
                                  tokenise(source, byte_tokenizer(false), cache),
                                  tokenise(source, byte_tokenizer(true, {"<x>"}), cache)};
  EXPECT_EQ(all.size(), 6u);

  std::string damaged = test::read_file(first);
  damaged[130] ^= 1;
  test::write_file(first, damaged);
  EXPECT_EQ(tokenise(source, tokenizer, cache), first);
  EXPECT_EQ(contents(first).documents, std::vector<Ids>{framed("one")});  // written again
}

TEST_F(TokeniseTest, TokenFilesOfAnotherTokenizerAreRefused) {
  const auto tokenizer = byte_tokenizer();
  tokenise_to_file(write("a.txt", "text"), tokenizer, dir_ / "a.tokens");
  config::DataSource source;
  source.path = (dir_ / "a.tokens").string();
  EXPECT_EQ(tokenise(source, tokenizer, dir_ / "cache"), source.path);
  EXPECT_FALSE(fs::exists(dir_ / "cache"));
  const auto other = byte_tokenizer(true, {"<x>"});
  EXPECT_NE(refusal([&] { tokenise(source, other, dir_ / "cache"); }).find("another tokenizer"), std::string::npos);
  {
    TokenFileWriter unknown(dir_ / "a.tokens", {1000, 0, false});
    unknown.add_document(Ids{1});
    unknown.finish();
  }
  EXPECT_NE(refusal([&] { tokenise(source, tokenizer, dir_ / "cache"); }).find("expected 258"), std::string::npos);
  EXPECT_NE(refusal([&] { tokenise_to_file(source, tokenizer, dir_ / "b.tokens"); }).find("already"),
            std::string::npos);
}

TEST_F(TokeniseTest, RealFilesGiveTheTokensOfTheTokenizersLibrary) {
  SATIN_NEEDS_SHARED();
  SATIN_NEEDS_PYTHON("tokenizers");
  const fs::path shared = test::shared_dir();
  const auto tokenizer = tokenizer::Tokenizer::load(shared / "models/books-29m");
  config::DataSource books, maths, wiki;
  books.path = (shared / "data/books-valid.jsonl").string();
  maths.path = (shared / "data/gsm8k-test.jsonl").string();
  maths.template_ = "Question: {question}\nAnswer: {answer}";
  wiki.path = (shared / "data/wikitext2-raw-test.txt").string();
  for (const auto& source : {books, maths, wiki}) {
    const auto python = test::run_python("data/tokenise.py " + (shared / "models/books-29m").string() + " " +
                                         source.path + " " + (dir_ / "expected.bin").string());
    ASSERT_EQ(python.exit_code, 0) << python.output;
    config::DataSource expected;
    expected.path = (dir_ / "expected.bin").string();
    const Contents ours = contents(tokenise(source, tokenizer, dir_ / "cache"));
    const Contents theirs = contents(tokenise(expected, tokenizer, dir_ / "cache"));
    ASSERT_EQ(ours.documents.size(), theirs.documents.size());
    for (size_t d = 0; d < ours.documents.size(); ++d) ASSERT_EQ(ours.documents[d], theirs.documents[d]) << d;
    // Windows that the model's reference.json scored.
    const Dataset dataset({{"x", tokenise(source, tokenizer, dir_ / "cache")}}, {.sequence_length = 1024});
    EXPECT_EQ(dataset.num_windows(), nlohmann::json::parse(test::read_file(shared / "models/books-29m/reference.json"))
                                         .at(fs::path(source.path).stem().string())
                                         .at("windows")
                                         .get<uint64_t>());
  }
}

}  // namespace
}  // namespace satin::data
