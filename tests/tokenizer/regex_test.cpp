// Every class that patterns use holds the characters that it holds in the `tokenizers` library, and normalization is
// its.
#include "tokenizer/regex.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "support/test_support.h"
#include "tokenizer/json_node.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace satin::tokenizer {
namespace {

std::vector<std::pair<size_t, size_t>> matches(const std::string& pattern, const std::string& text) {
  const nlohmann::json empty;
  const Regex regex = Regex::compile(pattern, JsonNode(empty, "test"));
  std::vector<std::pair<size_t, size_t>> out;
  regex.for_each_match(text, [&](size_t begin, size_t end) { out.emplace_back(begin, end); });
  return out;
}

using Matches = std::vector<std::pair<size_t, size_t>>;

}  // namespace

TEST(Regex, EmptyMatchesStepOverCharacters) {
  EXPECT_EQ(matches("x*", "axb"), (Matches{{0, 0}, {1, 2}, {3, 3}}));
  EXPECT_EQ(matches("(?=b)", "ab\xc3\xa9"), (Matches{{1, 1}}));
  EXPECT_EQ(matches("", "\xc3\xa9"), (Matches{{0, 0}, {2, 2}}));
}

TEST(Regex, LongRunsNeedNoStack) {
  EXPECT_EQ(matches(R"(\s+(?!\S)|\s+)", std::string(3'000'000, ' ') + "x").size(), 2u);
  EXPECT_EQ(matches(R"((?:a|b)*c|.)", std::string(1000, 'a')).size(), 1000u);
  EXPECT_EQ(matches(R"((?:a|bc)+)", std::string(2'000'000, 'a')).size(), 1u);
}

TEST(Regex, ClassesEqualOniguruma) {
  SATIN_NEEDS_PYTHON("tokenizers");
  test::TempDir dir;
  const auto made = test::run_python("tokenizer/characters.py " + dir.path().string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  std::ifstream file(dir / "classes.json");
  const nlohmann::json classes = nlohmann::json::parse(file);
  EXPECT_GT(classes.size(), 30u);
  const std::string all = test::read_file(dir / "all.txt");
  for (const auto& [pattern, expected] : classes.items()) {
    std::vector<std::array<uint32_t, 2>> found;  // first and last of every run of matching characters
    const auto collect = [&](std::string_view text, size_t begin) {
      const char32_t c = next_code_point(text, begin);
      if (!found.empty() && found.back()[1] == c - 1)
        found.back()[1] = c;
      else
        found.push_back({c, c});
    };
    if (pattern == "Digits") {
      const nlohmann::json digits{{"type", "Digits"}, {"individual_digits", true}};
      const auto pre_tokenizer = PreTokenizer::parse(JsonNode(digits, "test"));
      std::vector<Range> pieces;
      for (size_t i = 0, end; i < all.size(); i = end) {
        end = i + char_length(all[i]);
        const std::string pair = "\n" + all.substr(i, end - i);
        Text text(pair, 0, false);
        pre_tokenizer.apply(text, pieces);
        if (pieces.size() == 2) collect(all, i);
      }
    } else {
      for (const auto& [begin, end] : matches(pattern, all)) collect(all, begin);
    }
    EXPECT_TRUE(nlohmann::json(found) == expected) << pattern << "\n"
                                                   << nlohmann::json::diff(expected, found).dump().substr(0, 600);
  }
}

TEST(Normalizer, EqualsTheTokenizersLibrary) {
  SATIN_NEEDS_PYTHON("tokenizers");
  test::TempDir dir;
  const auto made = test::run_python("tokenizer/characters.py " + dir.path().string() + " --forms");
  ASSERT_EQ(made.exit_code, 0) << made.output;
  for (const char* form : {"NFC", "NFD", "NFKC", "NFKD"}) {
    const nlohmann::json node{{"type", form}};
    const Normalizer normalizer = Normalizer::parse(JsonNode(node, "test"));
    std::ifstream before(dir / "plain.txt"), after(dir / (std::string(form) + ".txt"));
    std::string line, expected;
    int count = 0, wrong = 0;
    while (std::getline(before, line) && std::getline(after, expected) && wrong < 10) {
      Text text(line, 0, true);
      normalizer.apply(text);
      ++count;
      if (text.bytes() != expected) {
        ADD_FAILURE() << form << " of " << testing::PrintToString(line) << " is " << testing::PrintToString(expected)
                      << ", not " << testing::PrintToString(std::string(text.bytes()));
        ++wrong;
      }
    }
    EXPECT_GT(count, 250'000);
  }
}

TEST(Normalizer, AlternatingMarksAreNotQuadratic) {
  std::string marks = "a";
  for (int i = 0; i < 200'000; ++i) marks += i % 2 ? "\xcc\x81" : "\xcc\xa3";  // acute, dot below
  const nlohmann::json node{{"type", "NFC"}};
  Text text(marks, 0, false);
  Normalizer::parse(JsonNode(node, "test")).apply(text);
  EXPECT_EQ(text.bytes().substr(0, 5), "\xe1\xba\xa1\xcc\xa3");  // a with dot below, then the other dots
}

}  // namespace satin::tokenizer
