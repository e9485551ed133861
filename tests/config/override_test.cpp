#include "config_support.h"

namespace satin::config::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST(Overrides, ReplaceAndAddValues) {
  const Config c = read("model: {path: m}\ntrain: {seed: 1}\n",
                        {"train.seed=7", "loss.kd.kind=reverse", "train.seed=8", "export.formats=[hf]",
                         "data.train.0.path=/x.jsonl", "data.train.0.template=\"Q: {q}\\nA\"", "data.valid=/v.txt"});
  EXPECT_EQ(c.train.seed, 8u);
  EXPECT_EQ(c.loss.kd.kind, "reverse");
  EXPECT_THAT(c.export_.formats, ElementsAre("hf"));
  EXPECT_EQ(c.data.train[0].path, "/x.jsonl");
  EXPECT_EQ(c.data.train[0].template_, "Q: {q}\nA");
  EXPECT_EQ(c.data.valid[0].path, "/v.txt");
}

TEST(Overrides, ReachListItemsAndAppend) {
  const std::string text = kModel + "data: {train: a.txt, valid: [{path: b.txt}, c.txt]}\n";
  const Config c = read(text, {"data.train.0.weight=2", "data.train.1=/second.txt", "data.train.1.weight=3",
                               "data.valid.1.name=third", "data.valid.2.path=/d.txt"});
  ASSERT_THAT(c.data.train, SizeIs(2));
  EXPECT_EQ(c.data.train[0].path, "/folder/a.txt");
  EXPECT_EQ(c.data.train[0].weight, 2);
  EXPECT_EQ(c.data.train[1].path, "/second.txt");
  EXPECT_EQ(c.data.train[1].weight, 3);
  ASSERT_THAT(c.data.valid, SizeIs(3));
  EXPECT_EQ(c.data.valid[1].path, "/folder/c.txt");
  EXPECT_EQ(c.data.valid[1].name, "third");
  EXPECT_EQ(c.data.valid[2].path, "/d.txt");
}

TEST(Overrides, CreateChangeAndRemoveQuantization) {
  EXPECT_EQ(read(kModel, {"quantization.default.bits=3"}).quantization->default_rule.bits, 3);
  EXPECT_EQ(read(kModel + "quantization: none", {"quantization.default.bits=3"}).quantization->default_rule.bits, 3);
  const std::string text = kModel + "quantization:\n  overrides:\n    - {match: a, bits: 4}\n    - {match: b}\n";
  const Config c = read(text, {"quantization.overrides.1.bits=3", "quantization.default.group_size=128"});
  EXPECT_EQ(c.quantization->overrides[1].bits, 3);
  EXPECT_EQ(c.quantization->overrides[0].group_size, 128) << "the default is inherited after overrides";
  EXPECT_FALSE(read(text, {"quantization=null"}).quantization);
  EXPECT_FALSE(read(text, {"quantization=none"}).quantization);
  EXPECT_FALSE(read(text, {"quantization="}).quantization);
  EXPECT_EQ(read(kModel, {"quantization.overrides.0.match=*.mlp.*"}).quantization->overrides[0].match, "*.mlp.*");
  EXPECT_THAT(read(text, {"quantization.overrides=[]"}).quantization->overrides, SizeIs(0));
}

TEST(Overrides, AnEmptyValueEmptiesAString) {
  EXPECT_EQ(read(kModel + "teacher: {path: t}", {"teacher.path="}).teacher.path, "");
}

TEST(OverrideErrors, NameTheOverride) {
  const auto wrong = [](const std::string& override, const std::string& message) {
    EXPECT_THAT(lines(problems(kModel + "data: {train: [a.txt]}", {override})),
                ElementsAre(StartsWith("override 1 (" + override + "): " + message)))
        << override;
  };
  wrong("train.sede=1", "unknown key 'train.sede'; did you mean 'seed'?");
  wrong("train.seed=x", "train.seed: expected an integer, found 'x'");
  wrong("train.seed.x=1", "train.seed: expected an integer, found a section");
  wrong("model.path.x=1", "'model.path' is a plain value and has no key 'x'");
  wrong("data.train.2.path=x", "'data.train' is a list of 1: expected an index from 0 to 1 (1 appends), found '2'");
  wrong("data.train.path=x", "'data.train' is a list of 1: expected an index from 0 to 1 (1 appends), found 'path'");
  wrong("data.train.99999999999999999999=x", "'data.train' is a list of 1");
  wrong("data.train.1.name=x", "data.train.1.path is missing");
  wrong("seed", "expected dotted.key=value");
  wrong("=1", "expected dotted.key=value");
  wrong("train..seed=1", "expected dotted.key=value, found the key 'train..seed'");
  wrong("train.=1", "expected dotted.key=value, found the key 'train.'");
  wrong("train.device=[a", "not valid YAML: ");
  wrong("train.max_steps=-5", "train.max_steps: expected an integer (steps, at least 0), found '-5'");
  wrong("quantization.overrides.0.bits=3", "quantization.overrides.0.match is missing");
  std::string deep = "a";
  for (int i = 0; i < 100; ++i) deep += ".a";
  wrong(deep + "=1", "a key of at most 16 parts");
}

TEST(OverrideErrors, ConflictsAcrossFileAndOverridesAreFound) {
  EXPECT_THAT(problems(kModel + "train: {max_tokens: 100}", {"train.max_steps=10"}),
              HasSubstr("max_steps (10) and max_tokens (100) both give the length"));
  EXPECT_EQ(problems(kModel + "train: {max_tokens: 100}", {"train.max_steps=10", "train.max_tokens=0"}), "");
}

}  // namespace
}  // namespace satin::config::test
