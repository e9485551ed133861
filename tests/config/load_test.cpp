#include "config_support.h"
#include "core/file.h"
#include "support/test_support.h"

namespace satin::config::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST(Load, LeastConfigurationKeepsTheDefaults) {
  Config expected;
  expected.model.path = "/folder/m";
  Config found = read(kModel);
  expected.train.output_dir = std::filesystem::absolute("runs/default");
  EXPECT_EQ(found, expected);
  EXPECT_EQ(found.loss.kd.weight, 1);
  EXPECT_EQ(found.loss.ce.weight, 0);
  EXPECT_EQ(found.loss.neighbourhood.rate, 0.15);
  EXPECT_EQ(found.loss.smoothness.weight, 0);
  EXPECT_FALSE(found.quantization);
}

TEST(Load, ReadsEveryKindOfValue) {
  const Config c = read(R"(
model: {path: "models/a b", init: random}
quantization:
  default: {method: minmax_symmetric, bits: 4, group_size: -1}
data:
  train:
    - path: a.jsonl
      template: "Q: {q}\nA: {a}"
      weight: .25
    - {path: /b.txt, name: b, weight: 0.75}
  shuffle: false
train: {seed: 18446744073709551615, max_tokens: 24e6}
optimizer: {learning_rate: 1e-4, weight_decay: 1}
export: {formats: [hf, compressed-tensors]}
)");
  EXPECT_EQ(c.model.path, "/folder/models/a b");
  EXPECT_EQ(c.model.init, "random");
  EXPECT_EQ(c.quantization->default_rule.method, "minmax_symmetric");
  EXPECT_EQ(c.quantization->default_rule.bits, 4);
  EXPECT_EQ(c.quantization->default_rule.group_size, -1);
  ASSERT_THAT(c.data.train, SizeIs(2));
  EXPECT_EQ(c.data.train[0].path, "/folder/a.jsonl");
  EXPECT_EQ(c.data.train[0].template_, "Q: {q}\nA: {a}");
  EXPECT_EQ(c.data.train[1].path, "/b.txt");
  EXPECT_FALSE(c.data.shuffle);
  EXPECT_EQ(c.train.seed, UINT64_MAX);
  EXPECT_EQ(c.train.max_tokens, 24'000'000);
  EXPECT_EQ(c.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(c.optimizer.weight_decay, 1);
  EXPECT_THAT(c.export_.formats, ElementsAre("hf", "compressed-tensors"));
}

TEST(Load, ListsHaveShorthands) {
  for (const char* train : {"a.txt", "[a.txt]", "{path: a.txt}", "[{path: a.txt}]"}) {
    const Config c = read(kModel + "data: {train: " + train + "}\nexport: {formats: hf}");
    ASSERT_THAT(c.data.train, SizeIs(1)) << train;
    EXPECT_EQ(c.data.train[0].path, "/folder/a.txt");
    EXPECT_THAT(c.export_.formats, ElementsAre("hf"));
  }
}

TEST(Load, NullAndNoneLeaveOutQuantization) {
  EXPECT_FALSE(read(kModel + "quantization:\n").quantization);
  EXPECT_FALSE(read(kModel + "quantization: none\n").quantization);
  EXPECT_TRUE(read(kModel + "quantization: {}\n").quantization);
}

TEST(Load, OverridesOfTheQuantizationInheritTheDefault) {
  const Config c = read(kModel + R"(
quantization:
  overrides:
    - match: "*.mlp.*"
      bits: 4
    - {match: "*.v_proj", method: ternary}
    - {match: "*.k_proj", method: seq, group_size: 128}
  default: {method: lsq, bits: 3, group_size: 32, scale_dtype: float16, init: data}
)");
  const auto& rules = c.quantization->overrides;
  ASSERT_THAT(rules, SizeIs(3));
  for (const auto& rule : rules) EXPECT_EQ(rule.scale_dtype, "float16");
  EXPECT_EQ(rules[0].match, "*.mlp.*");
  EXPECT_EQ(rules[0].bits, 4);
  EXPECT_EQ(rules[0].method, "lsq");
  EXPECT_EQ(rules[0].group_size, 32);
  EXPECT_EQ(rules[0].init, "data");
  EXPECT_EQ(rules[1].bits, 1.58);
  EXPECT_EQ(rules[2].bits, 2);
  EXPECT_EQ(rules[2].group_size, 128);
}

TEST(Load, AnchorsAndAliasesWork) {
  const Config c = read(kModel + "data:\n  train: &texts [a.txt, b.txt]\n  valid: *texts\n");
  EXPECT_EQ(c.data.train, c.data.valid);
  ASSERT_THAT(c.data.train, SizeIs(2));
}

TEST(LoadErrors, UnknownKeysNameTheLineAndTheNearestKey) {
  EXPECT_THAT(lines(problems("model:\n  path: m\nloss:\n  kd:\n    wieght: 1\n")),
              ElementsAre("c.yaml:5: unknown key 'loss.kd.wieght'; did you mean 'weight'?"));
  EXPECT_THAT(lines(problems(kModel + "optimiser:\n  learning_rate: 1\n")),
              ElementsAre("c.yaml:2: unknown key 'optimiser'; did you mean 'optimizer'?"));
  EXPECT_THAT(problems(kModel + "loss: {neighborhood: {rate: 0}}"), HasSubstr("did you mean 'neighbourhood'?"));
}

TEST(LoadErrors, UnknownKeysOfOtherSectionsAndOtherTrainersAreRecognised) {
  EXPECT_THAT(problems(kModel + "max_steps: 1"), HasSubstr("did you mean 'train.max_steps'?"));
  EXPECT_THAT(problems(kModel + "optimizer: {lr: 1}"), HasSubstr("here it is 'optimizer.learning_rate'"));
  EXPECT_THAT(problems("base_model: m"), HasSubstr("here it is 'model.path'"));
  EXPECT_THAT(problems(kModel + "zzzzzzzz: 1"), HasSubstr("the sections are model, teacher, quantization, loss"));
}

TEST(LoadErrors, MatchBelongsToOverridesOnly) {
  EXPECT_THAT(problems(kModel + "quantization: {default: {match: '*'}}"),
              HasSubstr("unknown key 'quantization.default.match'"));
  EXPECT_THAT(problems(kModel + "quantization:\n  overrides:\n    - bits: 3\n"),
              HasSubstr("c.yaml:4: quantization.overrides.0.match is missing: "));
}

TEST(LoadErrors, DuplicateKeys) {
  EXPECT_THAT(lines(problems("model:\n  path: m\ntrain:\n  seed: 1\n  seed: 2\nmodel:\n  path: n\n")),
              ElementsAre("c.yaml:5: duplicate key 'train.seed'; first given at c.yaml:4; keep one",
                          "c.yaml:6: duplicate key 'model'; first given at c.yaml:1; keep one"));
}

TEST(LoadErrors, Tabs) {
  EXPECT_THAT(lines(problems("model:\n\tpath: m\ntrain:\n \tseed: 1\n\t# a comment\n\t\n")),
              ElementsAre("c.yaml:2: a tab in the indentation; YAML is indented with spaces only",
                          "c.yaml:4: a tab in the indentation; YAML is indented with spaces only"));
}

TEST(LoadErrors, WrongTypes) {
  const auto wrong = [](const std::string& text, const std::string& message) {
    EXPECT_THAT(lines(problems(kModel + text)), ElementsAre("c.yaml:2: " + message)) << text;
  };
  wrong("train: {max_steps: abc}", "train.max_steps: expected an integer (steps, at least 0), found 'abc'");
  wrong("train: {max_steps: 1.5}", "train.max_steps: expected an integer (steps, at least 0), found '1.5'");
  wrong("train: {max_steps: '5'}", "train.max_steps: expected an integer (steps, at least 0), found '5' in quotes");
  wrong("train: {max_steps: [1]}", "train.max_steps: expected an integer (steps, at least 0), found a list");
  wrong("train: {max_steps: {a: 1}}",
        "train.max_steps: expected an integer (steps, at least 0), found a section with keys of its own");
  wrong("train: {max_steps: }", "train.max_steps: expected an integer (steps, at least 0), found nothing");
  wrong("train: {max_steps: 9223372036854775808}",
        "train.max_steps: expected an integer (steps, at least 0), found '9223372036854775808'");
  wrong("train: {seed: -1}", "train.seed: expected an integer, found '-1'");
  wrong("train: {deterministic: yes}", "train.deterministic: expected true or false, found 'yes'");
  wrong("loss: {ce: {weight: much}}", "loss.ce.weight: expected a number (at least 0), found 'much'");
  wrong("loss: {ce: {weight: .inf}}", "loss.ce.weight: expected a number (at least 0), found '.inf'");
  wrong("loss: {ce: {weight: nan}}", "loss.ce.weight: expected a number (at least 0), found 'nan'");
  wrong("loss: {ce: 1}", "loss.ce: expected a section (lines of key: value, with a space after the colon), found '1'");
  wrong("quantization: [1]",
        "quantization: expected a section (lines of key: value, with a space after the colon), found a list");
  wrong("data: {train: [[a]]}",
        "data.train.0: expected a section (lines of key: value, with a space after the colon), found a list");
  wrong(
      "data: {train: [{path: a, template: {b: }}]}",
      "data.train.0.template: expected a string (text with {field}), found a section with keys of its own; put a text "
      "that contains ': ' or '{' in quotes");
  wrong("export: {formats: [tensorrt]}",
        "export.formats.0: expected a name (one of hf | compressed-tensors | gptq | awq | bitnet | gguf), found "
        "'tensorrt'");
  EXPECT_THAT(problems("- a\n- b\n"), HasSubstr("c.yaml:1: the configuration: expected a section"));
}

TEST(LoadErrors, OutOfRange) {
  const auto wrong = [](const std::string& text, const std::string& message) {
    EXPECT_THAT(lines(problems(kModel + text)), ElementsAre("c.yaml:2: " + message)) << text;
  };
  wrong("train: {micro_batch_size: 0}",
        "train.micro_batch_size: expected an integer (sequences, at least 1), found '0'");
  wrong("loss: {neighbourhood: {rate: 1.5}}",
        "loss.neighbourhood.rate: expected a number (probability, 0 to 1), found '1.5'");
  wrong("loss: {neighbourhood: {ramp: -.1}}",
        "loss.neighbourhood.ramp: expected a number (fraction of training, 0 to 1), found '-.1'");
  wrong("loss: {kd: {temperature: 0}}", "loss.kd.temperature: expected a number (above 0), found '0'");
  wrong("optimizer: {beta2: 1}", "optimizer.beta2: expected a number (at least 0, below 1), found '1'");
  wrong("loss: {ce: {weight: 1e999}}", "loss.ce.weight: expected a number (at least 0), found '1e999'");
}

TEST(LoadErrors, EnumerationsSuggestTheNearestName) {
  EXPECT_THAT(problems(kModel + "optimizer: {schedule: cosin}"),
              HasSubstr("c.yaml:2: optimizer.schedule: expected a name (one of cosine | linear | constant), found "
                        "'cosin'; did you mean 'cosine'?"));
  EXPECT_THAT(problems(kModel + "quantization: {default: {method: lsq_asymetric}}"),
              HasSubstr("did you mean 'lsq_asymmetric'?"));
}

TEST(LoadErrors, MissingRequiredKeys) {
  EXPECT_THAT(lines(problems("")), ElementsAre(StartsWith("c.yaml:1: model.path is missing: Hugging Face model")));
  EXPECT_THAT(lines(problems("model:\n  init: random\n")), ElementsAre(StartsWith("c.yaml:1: model.path is missing")));
  EXPECT_THAT(lines(problems("model: {path: ''}")), ElementsAre(StartsWith("c.yaml:1: model.path is missing")));
  EXPECT_THAT(lines(problems(kModel + "data:\n  train:\n    - name: a\n")),
              ElementsAre(StartsWith("c.yaml:4: data.train.0.path is missing")));
}

TEST(LoadErrors, AllProblemsAtOnceInTheOrderOfTheFile) {
  const auto found = lines(problems(R"(modle: {path: m}
quantization:
  default: {bits: two}
  overrides:
    - {match: "*.mlp.*", group_size: 12}
loss:
  kd: {weight: -1, weight: 2}
train:
  device: gpu
  max_steps: 10
  max_tokens: 10
)",
                                    {"train.sede=1", "optimizer.beta1=x"}));
  EXPECT_THAT(
      found,
      ElementsAre(StartsWith("c.yaml:1: unknown key 'modle'; did you mean 'model'?"),
                  StartsWith("c.yaml:1: model.path is missing"), StartsWith("c.yaml:3: quantization.default.bits: "),
                  StartsWith("c.yaml:5: quantization.overrides.0.group_size: "),
                  StartsWith("c.yaml:7: duplicate key 'loss.kd.weight'"), StartsWith("c.yaml:7: loss.kd.weight: "),
                  StartsWith("c.yaml:9: train.device: "), StartsWith("c.yaml:11: train: max_steps (10)"),
                  StartsWith("override 1 (train.sede=1): unknown key 'train.sede'; did you mean 'seed'?"),
                  StartsWith("override 2 (optimizer.beta1=x): optimizer.beta1: expected a number")));
}

TEST(LoadErrors, LongListsOfProblemsAreCut) {
  std::string text = kModel;
  for (int i = 0; i < 500; ++i) text += "k" + std::to_string(i) + ": 1\n";
  const std::string message = problems(text);
  EXPECT_THAT(message, AllOf(HasSubstr("c.yaml has 500 problems:"), HasSubstr("and 450 more")));
  EXPECT_THAT(lines(message), SizeIs(51));
}

TEST(LoadErrors, SyntaxErrorsHaveLineAndColumn) {
  EXPECT_THAT(lines(problems("model:\n  path: [m\n")), ElementsAre(StartsWith("c.yaml:3:1: not valid YAML: ")));
  EXPECT_THAT(lines(problems("model:\n  path: \"m\n")), ElementsAre(StartsWith("c.yaml:3:2: not valid YAML: ")))
      << "a quote that is never closed";
  EXPECT_THAT(lines(problems("a:1\nb:2\n")), testing::Contains(HasSubstr("with a space after the colon")));
  EXPECT_EQ(
      read("model: {path: m}\ndata:\n  train:\n    path: a\n    template: |\n      {x}\n").data.train[0].template_,
      "{x}\n")
      << "the end of a text is left as it is";
  EXPECT_THAT(lines(problems("model: {path: *.mlp}\n")),
              ElementsAre(HasSubstr("put a text that begins with * in quotes")));
  EXPECT_THAT(lines(problems("a: b: c\n")), ElementsAre(StartsWith("c.yaml:1:5: not valid YAML: ")));
  EXPECT_THAT(problems(kModel + "---\nmodel: {}\n"), HasSubstr("one YAML document was expected"));
  EXPECT_THAT(problems("model: !!python/object:os.system {path: m}\n"), HasSubstr("c.yaml:1:"));
  EXPECT_THAT(problems("? [a]\n: b\n"), HasSubstr("a key must be a plain name"));
}

TEST(LoadErrors, HostileTextIsRefused) {
  EXPECT_THAT(problems(std::string(100'000, '[')), HasSubstr("nested more than 32 deep"));
  EXPECT_THAT(problems(std::string(100'000, '{')), HasSubstr("nested more than 32 deep"));
  std::string dashes;
  for (int i = 0; i < 50'000; ++i) dashes += "- ";
  EXPECT_THAT(problems(dashes), HasSubstr("nested more than 32 deep"));
  EXPECT_THAT(problems(std::string(2 << 20, 'a')), HasSubstr("at most 1048576 bytes was expected, found 2097152"));
  EXPECT_THAT(problems("a: &a [x]\nb: &b [*a, *a]\nc: *c\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(problems("a: &a [*a]\n"), HasSubstr("inside the value"));
  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
    for (int j = 1; j < 10; ++j) laughs += ", " + last;
    laughs += "]\n";
  }
  EXPECT_THAT(problems(laughs), HasSubstr("more than 100000 values"));
  EXPECT_THAT(problems("model: {path: \"\xff\"}"), HasSubstr("c.yaml:1: not valid UTF-8"));
  EXPECT_THAT(problems(std::string("model: {path: a\0b}", 18)), HasSubstr("c.yaml:1: control character 0"));
  EXPECT_THAT(problems("model: {path: \"a\\0b\"}"), HasSubstr("NUL"));
  EXPECT_THAT(problems("\xff\xfe"
                       "a"),
              HasSubstr("not valid UTF-8"));
}

TEST(LoadErrors, TheFileItself) {
  satin::test::TempDir dir;
  EXPECT_THROW(load(dir / "absent.yaml"), UserError);
  EXPECT_THROW(load(dir.path()), UserError);
}

TEST(LoadPaths, AreRelativeToTheFileAndInOverridesToTheCurrentDirectory) {
  satin::test::TempDir dir;
  std::filesystem::create_directories(dir / "configs");
  satin::test::write_file(dir / "configs/c.yaml",
                          "model: {path: ../m/}\ndata: {valid: v.txt}\ntrain: {output_dir: ./runs/x}\n");
  const Config c = load(dir / "configs/c.yaml", {"teacher.path=t/../u", "data.train=a.txt"}, Job::any);
  EXPECT_EQ(c.model.path, dir / "m");
  EXPECT_EQ(c.data.valid[0].path, dir / "configs/v.txt");
  EXPECT_EQ(c.train.output_dir, dir / "configs/runs/x");
  EXPECT_EQ(c.teacher.path, std::filesystem::current_path() / "u");
  EXPECT_EQ(c.data.train[0].path, std::filesystem::current_path() / "a.txt");
  EXPECT_EQ(c.data.cache_dir, "");
}

TEST(LoadPaths, HomeIsExpanded) {
  const char* home = std::getenv("HOME");
  if (!home) GTEST_SKIP() << "needs HOME";
  EXPECT_EQ(read("model: {path: ~/m}").model.path, (std::filesystem::path(home) / "m").lexically_normal());
}

}  // namespace
}  // namespace satin::config::test
