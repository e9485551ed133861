// Ids, spans and decoded text against the `tokenizers` library, on hard text that reference.py writes.
// SATIN_TOKENIZER_MB (megabytes of text a kind, default 0.2) makes it longer; speed is printed, in megabytes per
// second of processor time.
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iostream>

#include "support/test_support.h"
#include "tokenizer/tokenizer.h"

namespace satin::tokenizer {
namespace {

double cpu_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : bytes_(test::read_file(path)) {}
  bool done() const { return at_ == bytes_.size(); }
  uint32_t number() {
    uint32_t value = 0;
    std::memcpy(&value, bytes_.data() + at_, 4);
    at_ += 4;
    return value;
  }
  std::string text() {
    const uint32_t size = number();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  std::vector<uint32_t> numbers(size_t each) {
    std::vector<uint32_t> values(number() * each);
    std::memcpy(values.data(), bytes_.data() + at_, values.size() * 4);
    at_ += values.size() * 4;
    return values;
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

std::string shown(const std::string& text, size_t begin, size_t end) {
  begin = begin > 40 ? begin - 40 : 0;
  return testing::PrintToString(text.substr(begin, end + 40 - begin));
}

void compare(const std::filesystem::path& dir, const std::string& name) {
  const Tokenizer tokenizer = Tokenizer::load(dir);
  Reader texts(dir / "text.bin"), ids(dir / "ids.bin"), spans(dir / "spans.bin"), decoded(dir / "decoded.bin"),
      skipped(dir / "decoded_skip.bin");
  size_t num_bytes = 0, num_tokens = 0, num_documents = 0;
  double seconds = 0;
  while (!texts.done()) {
    const std::string text = texts.text();
    const std::vector<uint32_t> expected = ids.numbers(1);
    const double start = cpu_seconds();
    const std::vector<int32_t> found = tokenizer.encode(text);
    seconds += cpu_seconds() - start;
    num_bytes += text.size();
    num_tokens += found.size();
    const auto with_spans = tokenizer.encode_with_spans(text);
    ASSERT_EQ(with_spans.size(), found.size());
    for (size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
      ASSERT_EQ(found[i], with_spans[i].id);
      ASSERT_EQ(found[i], static_cast<int32_t>(expected[i]))
          << "document " << num_documents << ", token " << i << " near "
          << shown(text, with_spans[i].begin, with_spans[i].end);
    }
    ASSERT_EQ(found.size(), expected.size()) << "document " << num_documents;
    if (!spans.done() && name != "dropped") {  // the library's spans lose what it drops
      const std::vector<uint32_t> ends = spans.numbers(2);
      for (size_t i = 0; i < found.size(); ++i) {
        ASSERT_TRUE(with_spans[i].begin == ends[2 * i] && with_spans[i].end == ends[2 * i + 1])
            << "[" << with_spans[i].begin << ", " << with_spans[i].end << ") is not [" << ends[2 * i] << ", "
            << ends[2 * i + 1] << "), "
            << "document " << num_documents << ", token " << i << " near " << shown(text, ends[2 * i], ends[2 * i + 1]);
      }
    }
    ASSERT_EQ(tokenizer.decode(found, false), decoded.text()) << "document " << num_documents;
    ASSERT_EQ(tokenizer.decode(found, true), skipped.text()) << "document " << num_documents;
    ++num_documents;
  }
  EXPECT_EQ(tokenizer.invalid_utf8_count(), 0u);
  std::cout << "[ SPEED    ] " << name << ": " << num_documents << " documents, " << num_bytes * 1e-6 << " MB, "
            << num_tokens << " tokens equal; " << num_bytes * 1e-6 / seconds << " MB/s\n";
}

class Reference : public testing::TestWithParam<const char*> {};

TEST_P(Reference, EqualsTheTokenizersLibrary) {
  SATIN_NEEDS_PYTHON("tokenizers");
  const char* size = std::getenv("SATIN_TOKENIZER_MB");
  test::TempDir dir;
  const auto made = test::run_python("tokenizer/reference.py " + dir.path().string() + " " + GetParam() + " " +
                                     (size ? size : "0.2"));
  ASSERT_EQ(made.exit_code, 0) << made.output;
  compare(dir.path(), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Kinds, Reference,
                         testing::Values("gpt2", "prefix_space", "llama3", "qwen2", "o200k", "smollm", "splits",
                                         "llama2", "llama2_lines", "mistral", "mistral_first", "mistral_never",
                                         "mistral_whole", "unk", "unk_fused", "dropped"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST(Reference, RealTeacherOnRealText) {
  SATIN_NEEDS_SHARED();
  SATIN_NEEDS_PYTHON("tokenizers");
  test::TempDir dir;
  const auto shared = test::shared_dir();
  const auto made = test::run_python(
      "tokenizer/reference.py " + dir.path().string() + " --given " + (shared / "models/books-29m").string() + " " +
      (shared / "data/wikitext2-raw-test.txt").string() + " " + (shared / "data/gsm8k-test.jsonl").string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  compare(dir.path(), "books-29m");
}

}  // namespace
}  // namespace satin::tokenizer
