#include "data/token_file.h"

#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <functional>

#include "core/error.h"
#include "support/test_support.h"

namespace satin::data {
namespace {
using test::TempDir;
namespace fs = std::filesystem;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

void write_small(const fs::path& path, bool mask) {
  TokenFileWriter writer(path, {100, 7, mask});
  writer.add_document(std::vector<int32_t>{1, 2, 3}, mask ? std::vector<uint8_t>{0, 1, 1} : std::vector<uint8_t>{});
  writer.add_document(std::vector<int32_t>{99});
  writer.add_document(std::vector<int32_t>{5, 0});
  writer.extend_document(std::vector<int32_t>{6, 7, 8, 9},
                         mask ? std::vector<uint8_t>{0, 0, 1, 0} : std::vector<uint8_t>{});
  writer.finish();
}

TEST(TokenFile, RoundTrip) {
  TempDir dir;
  for (const bool mask : {false, true}) {
    write_small(dir / "a.tokens", mask);
    const TokenFile file(dir / "a.tokens");
    file.verify();
    ASSERT_EQ(file.num_tokens(), 10u);
    ASSERT_EQ(file.num_documents(), 3u);
    EXPECT_EQ(file.header().tokenizer_fingerprint, 7u);
    std::vector<int64_t> tokens(10);
    file.read_tokens(0, tokens);
    EXPECT_EQ(tokens, (std::vector<int64_t>{1, 2, 3, 99, 5, 0, 6, 7, 8, 9}));
    EXPECT_EQ(file.document_start(1), 3u);
    EXPECT_EQ(file.document_start(2), 4u);
    const std::vector<uint64_t> first_from = {0, 1, 1, 1, 2, 3, 3, 3, 3, 3};
    const std::vector<bool> scored = {0, 1, 1, 1, 1, 1, 0, 0, 1, 0};
    for (uint64_t i = 0; i < 10; ++i) {
      EXPECT_EQ(file.first_document_from(i), first_from[i]) << i;
      EXPECT_EQ(file.scored(i), !mask || scored[i]) << i;
    }
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);  // no temporary stays
}

TEST(TokenFile, PythonReadsWhatIsWritten) {
  TempDir dir;
  write_small(dir / "small.tokens", true);
  const auto small = test::run_python("data/token_file.py read " + (dir / "small.tokens").string());
  EXPECT_EQ(small.exit_code, 0);
  EXPECT_EQ(small.output,
            "[2, 7, 100]\n[[1, 2, 3], [0, 1, 1]]\n[[99], [1]]\n[[5, 0, 6, 7, 8, 9], [1, 1, 0, 0, 1, 0]]\n");
  {
    TokenFileWriter writer(dir / "wide.tokens", {200000, 0, false});
    writer.add_document(std::vector<int32_t>{199999, 65536, 1});
    writer.finish();
  }
  const auto wide = test::run_python("data/token_file.py read " + (dir / "wide.tokens").string());
  EXPECT_EQ(wide.output, "[4, 0, 200000]\n[[199999, 65536, 1], [1, 1, 1]]\n");
}

TEST(TokenFile, ReadsWhatPythonWrites) {
  TempDir dir;
  const auto result = test::run_python("data/token_file.py write " + (dir / "p.tokens").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const TokenFile file(dir / "p.tokens");
  file.verify();
  std::vector<int64_t> tokens(10);
  file.read_tokens(0, tokens);
  EXPECT_EQ(tokens, (std::vector<int64_t>{5, 6, 7, 1, 9, 8, 65535, 0, 3, 3}));
  const std::vector<bool> scored = {0, 1, 1, 1, 0, 0, 1, 1, 1, 0};
  for (uint64_t i = 0; i < 10; ++i) EXPECT_EQ(file.scored(i), scored[i]);
  EXPECT_EQ(file.document_start(3), 8u);
}

TEST(TokenFile, EveryFlippedBitIsFound) {
  TempDir dir;
  write_small(dir / "a.tokens", true);
  const std::string good = test::read_file(dir / "a.tokens");
  const size_t padding_begin = 128 + 20, padding_end = 128 + 24;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    if (bit / 8 >= padding_begin && bit / 8 < padding_end) continue;
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
    test::write_file(dir / "b.tokens", bad);
    EXPECT_THROW(TokenFile(dir / "b.tokens").verify(), UserError) << "bit " << bit;
  }
}

TEST(TokenFile, EveryTruncationAndExtensionIsRefused) {
  TempDir dir;
  write_small(dir / "a.tokens", true);
  const std::string good = test::read_file(dir / "a.tokens");
  for (size_t size = 0; size < good.size(); ++size) {
    test::write_file(dir / "b.tokens", good.substr(0, size));
    EXPECT_THROW(TokenFile(dir / "b.tokens"), UserError) << size;
  }
  test::write_file(dir / "b.tokens", good + '\0');
  EXPECT_THROW(TokenFile(dir / "b.tokens"), UserError);
}

TEST(TokenFile, LiesAreNamed) {  // with a right checksum
  TempDir dir;
  write_small(dir / "a.tokens", false);
  const std::string good = test::read_file(dir / "a.tokens");
  const auto lie = [&](const std::function<void(TokenFileHeader&)>& change) {
    TokenFileHeader header;
    std::memcpy(&header, good.data(), sizeof header);
    change(header);
    header.header_crc = 0;
    header.header_crc = crc32c(std::as_bytes(std::span(&header, 1)));
    std::string bad = good;
    std::memcpy(bad.data(), &header, sizeof header);
    test::write_file(dir / "lie.tokens", bad);
    const std::string message = message_of([&] { TokenFile(dir / "lie.tokens").verify(); });
    EXPECT_NE(message.find("lie.tokens"), std::string::npos) << message;
    return message;
  };
  using H = TokenFileHeader;
  const uint64_t huge = ~uint64_t{0};
  const std::vector<std::pair<std::function<void(H&)>, const char*>> cases = {
      {[](H& h) { h.magic[0] = 'X'; }, "magic"},
      {[](H& h) { h.version = 2; }, "version: expected 1, found 2"},
      {[](H& h) { h.num_tokens = 0; }, "number of tokens: 0"},
      {[&](H& h) { h.num_tokens = huge; }, "number of tokens"},
      {[&](H& h) { h.num_tokens = huge / 2 + 6; }, "number of tokens"},  // times 2 wraps to 10
      {[](H& h) { h.num_tokens = 11; }, "checksum"},  // fits in the padding: only the checksum can tell
      {[](H& h) { h.num_documents = 0; }, "number of documents"},
      {[](H& h) { h.num_documents = 11; }, "number of documents"},
      {[](H& h) { h.num_documents = 2; }, "file size"},
      {[&](H& h) { h.num_tokens = huge / 4, h.num_documents = huge / 8 + 4; }, "number of tokens"},
      {[](H& h) { h.token_bytes = 3; }, "bytes a token"},
      {[](H& h) { h.token_bytes = 4; }, "file size"},
      {[](H& h) { h.flags = 2; }, "flags"},
      {[](H& h) { h.flags = 1; }, "file size"},
      {[](H& h) { h.zero = 1; }, "reserved"},
      {[](H& h) { h.reserved[59] = 1; }, "reserved"},
      {[](H& h) { h.vocab_size = 0; }, "vocabulary size"},
      {[](H& h) { h.vocab_size = 65537; }, "vocabulary size"},
      {[](H& h) { h.vocab_size = 99; }, "tokens: id 99"},
      {[](H& h) { h.tokens_crc ^= 1; }, "tokens: checksum"},
      {[](H& h) { h.documents_crc ^= 1; }, "document starts: checksum"},
  };
  for (const auto& [change, expected] : cases) {
    const std::string message = lie(change);
    EXPECT_NE(message.find(expected), std::string::npos) << "expected " << expected << " in " << message;
  }
  EXPECT_NE(message_of([&] { TokenFile(dir / "absent.tokens"); }).find("absent.tokens"), std::string::npos);
  EXPECT_NE(message_of([&] { TokenFile{dir.path()}; }), "no error");
}

TEST(TokenFileWriter, RefusesIdsOutsideTheVocabulary) {
  TempDir dir;
  for (const int32_t id : {-1, 100}) {
    TokenFileWriter writer(dir / "a.tokens", {100, 0, false});
    const std::string message = message_of([&] { writer.add_document(std::vector<int32_t>{1, id}); });
    EXPECT_NE(message.find(cat("token id ", id)), std::string::npos) << message;
  }
  {
    TokenFileWriter writer(dir / "a.tokens", {100, 0, false});
    EXPECT_THROW(writer.finish(), UserError);  // nothing to write
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(TokenFileWriter, FailedWriteLeavesTheOldFile) {
  TempDir dir;
  write_small(dir / "a.tokens", true);
  const std::string before = test::read_file(dir / "a.tokens");
  // A limit on file sizes fails writes as a full disk does.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ::getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit{1 << 20, old_limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::string message;
  {
    TokenFileWriter writer(dir / "a.tokens", {100, 0, false});
    message = message_of([&] {
      writer.add_document(std::vector<int32_t>(1 << 20, 3));
      writer.finish();
    });
  }
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_EQ(test::read_file(dir / "a.tokens"), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1);
  EXPECT_NE(message_of([&] {
              TokenFileWriter(dir / "no/such/a.tokens", {9, 0, false});
            }).find("No such file"),
            std::string::npos);
}

}  // namespace
}  // namespace satin::data
