#include "eval/tasks.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "eval/corpus.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

using Ranges = std::vector<std::pair<size_t, size_t>>;

TEST(Annotations, FindsTheResultsOnly) {
  EXPECT_EQ(find_annotations("a <<48/2=24>>24 b"), (Ranges{{9, 11}}));
  EXPECT_EQ(find_annotations("<<1+1=2>><<2=2>>"), (Ranges{{6, 7}, {13, 14}}));
  EXPECT_EQ(find_annotations("<<1=>>"), (Ranges{{4, 4}}));
  EXPECT_EQ(find_annotations("<<1<2=3>> <<a>> <<=>"), (Ranges{}));
  EXPECT_EQ(find_annotations("<<<1=2>>"), (Ranges{{5, 6}}));
  EXPECT_EQ(find_annotations("<<1=2=3>>"), (Ranges{{4, 7}}));  // group 1 may hold '='
}

// Python's re on random strings over the characters that matter.
TEST(Annotations, AgreesWithPythonsRegularExpressions) {
  SATIN_NEEDS_PYTHON("json");
  test::TempDir dir;
  ASSERT_EQ(test::run_python("eval/annotation_cases.py " + (dir / "cases.json").string()).exit_code, 0);
  const auto cases = nlohmann::json::parse(test::read_file(dir / "cases.json"));
  ASSERT_GT(cases.size(), 1000u);
  for (const auto& item : cases) {
    Ranges want;
    for (const auto& range : item["ranges"]) want.emplace_back(range[0], range[1]);
    EXPECT_EQ(find_annotations(item["text"].get<std::string>()), want) << item["text"];
  }
}

TEST(Question, ReadsBothForms) {
  using nlohmann::json;
  const Question pair = parse_question(json{{"good", "a"}, {"bad", "b"}}, "f:1");
  EXPECT_EQ(pair.choices, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(pair.answer, 0u);
  const json named = {{"context", "c"}, {"choices", {"x", "y", "z"}}, {"answer", "y"}};
  EXPECT_EQ(parse_question(named, "f:1").answer, 1u);
  for (const json& bad : {json{{"good", "a"}}, json{{"context", "c"}, {"choices", {"x"}}, {"answer", 0}},
                          json{{"context", "c"}, {"choices", {"x", "y"}}, {"answer", 2}},
                          json{{"context", "c"}, {"choices", {"x", "y"}}, {"answer", -1}}, json::array(),
                          json{{"good", 1}, {"bad", "b"}}})
    EXPECT_THROW(parse_question(bad, "f:1"), UserError) << bad;
}

TEST(Corpus, DataArgument) {
  test::TempDir dir;
  test::write_file(dir / "a.jsonl", "{}\n");
  test::write_file(dir / "b:c.txt", "x");
  EXPECT_EQ(parse_data_argument("--data", (dir / "a.jsonl").string() + ":body", "", "").field, "body");
  EXPECT_EQ(parse_data_argument("--data", (dir / "b:c.txt").string(), "", "n").path, (dir / "b:c.txt").string());
  EXPECT_THROW(parse_data_argument("--data", (dir / "none").string(), "", ""), UserError);
}

}  // namespace
}  // namespace satin::eval
