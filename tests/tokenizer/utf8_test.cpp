#include "tokenizer/utf8.h"

#include "support/test_support.h"

namespace satin::tokenizer {
namespace {

std::string repaired(std::string_view text, uint64_t expected_count) {
  uint64_t count = 0;
  std::string out = replace_invalid_utf8(text, count);
  EXPECT_EQ(count, expected_count);
  return out;
}

const std::string kFffd = "\xef\xbf\xbd";

}  // namespace

TEST(Utf8, UnicodeStandardTable3_8) {  // U+FFFD for maximal subparts of ill-formed subsequences
  EXPECT_EQ(repaired("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", 8),
            kFffd + kFffd + kFffd + kFffd + kFffd + kFffd + kFffd + kFffd + "A");
  EXPECT_EQ(repaired("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", 8),
            kFffd + kFffd + kFffd + kFffd + kFffd + kFffd + kFffd + kFffd + "A");
  EXPECT_EQ(repaired("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", 4), kFffd + kFffd + kFffd + kFffd + "A");
}

TEST(Utf8, ValidTextIsUntouched) {
  const std::string text("a\0\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf 12345678", 28);
  EXPECT_EQ(repaired(text, 0), text);
}

TEST(Utf8, EncodesWhatItDecodes) {
  for (char32_t c = 0; c <= 0x10ffff; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    std::string text;
    append_code_point(text, c);
    size_t end = 0;
    ASSERT_EQ(next_code_point(text, end), c);
    ASSERT_EQ(end, text.size());
    ASSERT_EQ(char_length(text[0]), text.size());
    ASSERT_EQ(valid_utf8_prefix(text), text.size());
  }
}

TEST(Utf8, ReplacesAsPythonDoes) {
  SATIN_NEEDS_PYTHON("tokenizers");
  test::TempDir dir;
  std::string bytes;  // every pair of interesting bytes, and longer runs
  const unsigned char some[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
  uint32_t state = 1;
  for (int i = 0; i < 300'000; ++i) {
    state = state * 1664525u + 1013904223u;
    bytes += static_cast<char>(some[(state >> 16) % sizeof some]);
  }
  test::write_file(dir / "in", bytes);
  test::write_file(dir / "replace.py",
                   "import sys\n"
                   "text = open(sys.argv[1], 'rb').read().decode('utf-8', errors='replace')\n"
                   "open(sys.argv[2], 'wb').write(text.encode())\n"
                   "print(text.count('\\ufffd'))\n");
  const auto result =
      test::run_python("../" + std::filesystem::relative(dir / "replace.py", test::source_dir()).string() + " " +
                       (dir / "in").string() + " " + (dir / "out").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(repaired(bytes, std::stoull(result.output)), test::read_file(dir / "out"));
}

}  // namespace satin::tokenizer
