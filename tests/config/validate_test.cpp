#include "config/validate.h"

#include "config_support.h"
#include "support/test_support.h"

namespace satin::config::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string rule(const std::string& keys) { return problems(kModel + "quantization: {default: {" + keys + "}}"); }

TEST(Rules, BitsThatMethodsHave) {
  for (const char* method : {"minmax_symmetric", "minmax_asymmetric", "lsq", "lsq_asymmetric"}) {
    const std::string start = std::string("method: ") + method;
    for (int bits = 2; bits <= 8; ++bits) EXPECT_EQ(rule(start + ", bits: " + std::to_string(bits)), "");
    EXPECT_THAT(rule(start + ", bits: 2.5"), HasSubstr("has 2, 3, ... 8 bits, found 2.5"));
    EXPECT_THAT(rule(start + ", bits: 1"), HasSubstr("has 2, 3, ... 8 bits, found 1"));
    EXPECT_THAT(rule(start + ", bits: 9"), HasSubstr("expected a number (bits, 1 to 8), found '9'"));
  }
  EXPECT_EQ(rule("method: seq"), "");
  EXPECT_EQ(rule("method: seq, bits: 2"), "");
  EXPECT_THAT(rule("method: seq, bits: 3"), HasSubstr("method seq has 2 bits, found 3"));
  EXPECT_EQ(rule("method: ternary"), "");
  EXPECT_EQ(rule("method: ternary, bits: 1.58"), "");
  EXPECT_THAT(rule("method: ternary, bits: 2"), HasSubstr("method ternary has 1.58 bits, found 2"));
  EXPECT_THAT(rule("method: none"), HasSubstr("nothing is quantized"));
  EXPECT_EQ(problems(kModel + "quantization: {default: {method: none}, kv_cache: int8}"), "");
  EXPECT_EQ(problems(kModel + "quantization: {default: {method: none}, overrides: [{match: a, method: lsq}]}"), "");
}

TEST(Rules, GroupSizes) {
  for (const char* size : {"-1", "0", "8", "64", "128"}) EXPECT_EQ(rule(std::string("group_size: ") + size), "");
  for (const char* size : {"4", "100"}) {
    EXPECT_THAT(rule(std::string("group_size: ") + size),
                HasSubstr("expected a multiple of 8, -1 (one scale per output"));
  }
  EXPECT_EQ(rule("method: onebit"), "") << "rows unless something is said";
  EXPECT_THAT(rule("method: onebit, group_size: 64"), HasSubstr("one value per output channel"));
  EXPECT_THAT(rule("method: lwc, group_size: 0"), HasSubstr("clips groups or rows"));
}

TEST(Rules, BitsOfColumns) {
  const auto override_of = [](const std::string& keys, const std::string& more = "") {
    return problems(kModel + "quantization: {default: {bits: 3}, overrides: [{match: a, " + keys + "}]" + more + "}");
  };
  EXPECT_EQ(override_of("column_bits: [3, 2, 4, 3]"), "") << "bits is then 4";
  EXPECT_EQ(override_of("bits: 4, column_bits: [3, 2, 4, 3]"), "");
  EXPECT_THAT(override_of("bits: 3, column_bits: [3, 2, 4, 3]"),
              HasSubstr("overrides.0.bits: codes are stored in it, so it is at least the 4 of column_bits; found 3"));
  EXPECT_THAT(override_of("column_bits: [1, 3]"),
              HasSubstr("column_bits.0: expected an integer (bits, 2 to 8), found '1'"));
  EXPECT_THAT(override_of("column_bits: [2, 3], method: lwc"), HasSubstr("need method lsq or lsq_asymmetric"));
  EXPECT_THAT(override_of("column_bits: [2, 3], method: seq"), HasSubstr("need method lsq or lsq_asymmetric"));
  for (const char* size : {"-1", "0", "96", "256"})
    EXPECT_THAT(override_of(std::string("column_bits: [2, 3], group_size: ") + size),
                HasSubstr(std::string("must divide (8, 16, ... 128), found ") + size));
  EXPECT_THAT(override_of("column_bits: [2, 3]", ", hardening: [{bits: 8, until: 0.1}]"),
              HasSubstr("overrides.0.column_bits) have theirs from the start; leave hardening out"));
  EXPECT_THAT(rule("column_bits: [2, 3]"), HasSubstr("unknown key 'quantization.default.column_bits'"));
}

TEST(Rules, HardeningDescends) {
  const auto stages = [](const std::string& method, const std::string& list) {
    return problems(kModel + "quantization: {default: {method: " + method + "}, hardening: " + list + "}");
  };
  EXPECT_EQ(stages("lsq", "[{bits: 8, until: 0.1}, {bits: 4, until: 0.3}]"), "");
  EXPECT_THAT(stages("lsq", "[{bits: 4, until: 0.1}, {bits: 8, until: 0.3}]"),
              HasSubstr("hardening.1.bits: expected a whole number below 4, found 8"));
  EXPECT_THAT(stages("lsq", "[{bits: 8, until: 0.3}, {bits: 4, until: 0.3}]"),
              HasSubstr("hardening.1.until: expected more than 0.3"));
  EXPECT_THAT(stages("lsq", "[{bits: 3.5, until: 0.3}]"), HasSubstr("a whole number"));
  EXPECT_THAT(stages("seq", "[{bits: 8, until: 0.3}]"), HasSubstr("method seq has one number of bits"));
}

TEST(Sources, TemplatesAndWeights) {
  const auto source = [](const std::string& text) { return problems(kModel + "data: {train: " + text + "}"); };
  EXPECT_EQ(source("{path: a, template: 'x {y}'}"), "");
  EXPECT_THAT(source("{path: a, template: 'x y'}"), HasSubstr("at least one {field}"));
  EXPECT_THAT(source("{path: a, template: '{x}', field: y}"), HasSubstr("template and field were both given"));
  EXPECT_THAT(source("{path: a, template: '{x}', format: messages}"), HasSubstr("remove template"));
  EXPECT_EQ(source("[{path: a, weight: 1}, {path: b, weight: 3}]"), "");
  EXPECT_THAT(source("[{path: a, weight: 1}, {path: b}]"),
              HasSubstr("data.train.1.weight: 1 of 2 sources have a weight"));
}

/// A folder with a model and a text, so that only the problems asked about are left.
class TrainingTest : public testing::Test {
 protected:
  TrainingTest() {
    std::filesystem::create_directories(dir_ / "m");
    satin::test::write_file(dir_ / "a.txt", "text");
  }
  std::string train(const std::string& text, const Overrides& overrides = {}) {
    try {
      parse(text, "c.yaml", dir_.path(), overrides, Job::train);
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  const std::string kBase = "model: {path: m}\ndata: {train: a.txt}\ntrain: {max_steps: 1}\n";
  const std::string kQat = kBase + "quantization: {}\n";
  satin::test::TempDir dir_;
};

TEST_F(TrainingTest, LeastQatAndLeastDenseTraining) {
  EXPECT_EQ(train(kQat), "");
  EXPECT_EQ(train(kBase + "loss: {ce: {weight: 1}, kd: {weight: 0}}"), "");
  EXPECT_EQ(train(kBase + "teacher: {path: m}"), "") << "dense distillation from another model";
  EXPECT_EQ(train(kQat + "loss: {ce: {weight: 1}, kd: {weight: 0}}"), "") << "QAT on the text alone";
}

TEST_F(TrainingTest, NeedsTextAndALength) {
  EXPECT_THAT(
      lines(train("model: {path: m}\nquantization: {}\n")),
      ElementsAre(StartsWith("c.yaml:1: data.train: there is no text"), StartsWith("c.yaml:1: train: how long?")));
  EXPECT_THAT(lines(train(kQat, {"data.train=[]", "train.max_steps=0"})),
              ElementsAre(StartsWith("override 1 (data.train=[]): data.train: there is no text"),
                          StartsWith("override 2 (train.max_steps=0): train: how long?")));
}

TEST_F(TrainingTest, LossesFitTheTeacher) {
  EXPECT_THAT(train(kBase), AllOf(HasSubstr("without a quantization section"),
                                  HasSubstr("set loss.ce.weight to 1 and loss.kd.weight to 0, or give teacher.path")));
  EXPECT_THAT(train(kBase, {"loss.kd.weight=0", "loss.smoothness.weight=.5"}),
              HasSubstr("set loss.ce.weight to 1 and loss.smoothness.weight to 0, or give teacher.path"));
  EXPECT_THAT(train(kQat, {"model.init=random"}),
              HasSubstr("override 1 (model.init=random): model.init: random weights have no teacher"));
  EXPECT_THAT(train(kQat, {"loss.kd.weight=0"}), HasSubstr("every weight is 0"));
}

TEST_F(TrainingTest, HiddenStatesNeedATeacherInMemory) {
  EXPECT_EQ(train(kQat, {"loss.hidden.weight=1"}), "");
  EXPECT_EQ(train(kQat, {"loss.hidden.weight=1", "loss.kd.weight=0", "loss.hidden.layers=last"}), "");
  EXPECT_EQ(train(kQat, {"loss.hidden.weight=1", "teacher.cache=c"}), "") << "the cache gives the neighbours alone";
  for (const char* offline : {"loss.neighbourhood.rate=0", "teacher.copies=2"})
    EXPECT_THAT(
        train(kQat, {"loss.hidden.weight=1", "teacher.cache=c", offline}),
        HasSubstr("loss.hidden.weight: the losses read teacher.cache, which holds logits and no hidden states"));
  EXPECT_THAT(train(kBase, {"loss.kd.weight=0", "loss.hidden.weight=1"}),
              HasSubstr("set loss.ce.weight to 1 and loss.hidden.weight to 0, or give teacher.path"));
}

TEST_F(TrainingTest, PerturbedCopiesAreFixed) {
  const auto copies = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"teacher.copies=2", "teacher.cache=c"});
    return train(kQat, more);
  };
  EXPECT_EQ(copies({}), "");
  EXPECT_EQ(copies({"loss.neighbourhood.source=random"}), "");
  EXPECT_THAT(train(kQat, {"teacher.copies=2"}), HasSubstr("teacher.copies: 2 perturbed copies are stored in"));
  EXPECT_THAT(copies({"loss.neighbourhood.rate=0"}), HasSubstr("need a loss.neighbourhood.rate above 0, found 0"));
  EXPECT_THAT(copies({"loss.neighbourhood.ramp=.5"}), HasSubstr("loss.neighbourhood.start 0 and ramp 0.5; set both"));
  EXPECT_THAT(copies({"loss.neighbourhood.start=.5"}), HasSubstr("drawn once, at the whole rate"));
  EXPECT_THAT(copies({"loss.neighbourhood.source=student"}), HasSubstr("drawn before there is a student"));
  EXPECT_THAT(copies({"loss.neighbourhood.placement=branch"}), HasSubstr("not branch tokens"));
}

TEST_F(TrainingTest, TheGradientPenaltyHasOneStrengthAndNoLearnedActivationScale) {
  EXPECT_EQ(train(kQat, {"loss.lgr.weight=.01", "loss.lgr.layer=0"}), "");
  EXPECT_EQ(train(kQat, {"loss.lgr.gradient_ratio=.1", "quantization.default.activations=int8"}), "");
  EXPECT_THAT(train(kQat, {"loss.lgr.weight=.01", "loss.lgr.gradient_ratio=.1"}),
              HasSubstr("weight (0.01) and gradient_ratio (0.1) both say how strong it is"));
  EXPECT_EQ(train(kQat, {"quantization.default.activations=int8_static"}), "");
  EXPECT_THAT(train(kQat, {"loss.lgr.weight=.01", "quantization.default.activations=int8_static"}),
              HasSubstr("quantization.default.activations: int8_static has a learned scale"));
  EXPECT_THAT(train(kQat, {"loss.lgr.gradient_ratio=1"}), HasSubstr("below 1"));
}

TEST_F(TrainingTest, FilesMustBeThere) {
  std::filesystem::create_directories(dir_ / "teacher");
  satin::test::write_file(dir_ / "train.jsonl", "{}");
  const auto found =
      lines(train("model: {path: no/such/model}\nteacher: {path: teachr}\ndata:\n  train: trian.jsonl\n  valid: m\n"
                  "train: {max_steps: 1}\nquantization: {}\n"));
  ASSERT_EQ(found.size(), 4u);
  EXPECT_THAT(found[0], AllOf(StartsWith("c.yaml:1: model.path: there is no directory"),
                              HasSubstr("; it exists up to " + dir_.path().string())));
  EXPECT_THAT(found[1], AllOf(StartsWith("c.yaml:2: teacher.path: "), HasSubstr("did you mean 'teacher'?")));
  EXPECT_THAT(found[2], AllOf(StartsWith("c.yaml:4: data.train.0.path: "), HasSubstr("did you mean 'train.jsonl'?")));
  EXPECT_THAT(found[3], StartsWith("c.yaml:5: data.valid.0.path: expected a file, found something else"));
}

TEST_F(TrainingTest, AWrongValueIsReportedOnceAndNotAlsoAsAConflict) {
  EXPECT_THAT(lines(train(kQat, {"train.max_steps=ten"})), ElementsAre(HasSubstr("expected an integer")));
  EXPECT_THAT(lines(train(kQat, {"train=5"})), ElementsAre(HasSubstr("train: expected a section")));
  EXPECT_THAT(lines(train(kBase, {"quantization=[1]"})), ElementsAre(HasSubstr("quantization: expected a section")));
  EXPECT_THAT(lines(train("5")), ElementsAre(HasSubstr("the configuration: expected a section")));
  EXPECT_THAT(lines(train(kQat, {"loss.kd.weight=-1"})), ElementsAre(HasSubstr("expected a number")));
}

TEST_F(TrainingTest, QuantizeNeedsAQuantizationButNoText) {
  const auto quantize = [&](const std::string& text) { parse(text, "c.yaml", dir_.path(), {}, Job::quantize); };
  EXPECT_NO_THROW(quantize("model: {path: m}\nquantization: {default: {method: minmax_asymmetric}}"));
  EXPECT_THROW(quantize("model: {path: m}"), UserError);
}

TEST_F(TrainingTest, PostTrainingMethodsNeedSchemesThatHoldTheirResults) {
  const auto quantize = [&](const std::string& rule, const std::string& ptq) {
    const std::string text =
        "model: {path: m}\ndata: {train: a.txt}\nquantization:\n  default: {" + rule + "}\nptq: {" + ptq + "}";
    try {
      parse(text, "c.yaml", dir_.path(), {}, Job::quantize);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const char* method : {"gptq", "awq", "block_ap"}) {
    EXPECT_EQ(quantize("method: lsq_asymmetric", cat("method: ", method)), "");
    EXPECT_THAT(
        quantize("method: minmax_asymmetric", cat("method: ", method)),
        HasSubstr(cat("c.yaml:4: quantization.default.method: ptq.method ", method, " needs lsq_asymmetric, lsq")));
  }
  EXPECT_EQ(quantize("method: lwc", "method: lwc, gradient_ratio: 1"), "");
  EXPECT_THAT(quantize("method: lsq", "method: lwc"), HasSubstr("needs lsq_asymmetric or lwc; found lsq"));
  EXPECT_THAT(quantize("method: lwc", "method: lwc, masters: levels"), HasSubstr("c.yaml:5: ptq.masters"));
  EXPECT_THAT(quantize("method: lsq", "method: gptq, gradient_ratio: 1"), HasSubstr("method gptq learns nothing"));
}

TEST_F(TrainingTest, OverridesFromAFileComeBeforeTheConfigsOwn) {
  satin::test::write_file(dir_.path() / "bits.yaml", "- {match: \"a.*\", bits: 3}\n- {match: \"b.*\", bits: 4}\n");
  const std::string text =
      "model: {path: m}\nquantization:\n  default: {group_size: 128}\n  overrides_from: bits.yaml\n  overrides: "
      "[{match: c, bits: 8}]";
  const Config config = parse(text, "c.yaml", dir_.path(), {}, Job::any);
  ASSERT_EQ(config.quantization->overrides.size(), 3u);
  EXPECT_EQ(config.quantization->overrides[0].match, "a.*");
  EXPECT_EQ(config.quantization->overrides[1].bits, 4);
  EXPECT_EQ(config.quantization->overrides[1].group_size, 128);
  EXPECT_EQ(config.quantization->overrides[2].match, "c");
  EXPECT_EQ(config.quantization->overrides_from, "");
  EXPECT_EQ(parse(dump(config), "d.yaml", dir_.path(), {}, Job::any), config);
  const auto problem = [&](const std::string& file) {
    try {
      parse("model: {path: m}\nquantization: {overrides_from: " + file + "}", "c.yaml", dir_.path(), {}, Job::any);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(problem("bits.yaml"), "");
  EXPECT_THAT(problem("absent.yaml"), HasSubstr("c.yaml:2: quantization.overrides_from: there is no file"));
  satin::test::write_file(dir_.path() / "wrong.yaml", "- {match: a}\n- {match: b, bitz: 4}\n");
  EXPECT_THAT(problem("wrong.yaml"), AllOf(HasSubstr("wrong.yaml:2: unknown key"), HasSubstr("bits")));
}

TEST_F(TrainingTest, AllocationNeedsCandidatesWithinTheBudget) {
  const auto problem = [&](const std::string& keys) {
    const std::string text = "model: {path: m}\ndata: {train: a.txt}\nquantization: {}\nallocate: {" + keys + "}";
    try {
      parse(text, "c.yaml", dir_.path(), {}, Job::allocate);
    } catch (const UserError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(problem("average_bits: 2.5"), "");
  EXPECT_THAT(problem("average_bits: 2.5, candidates: [3, 4]"),
              HasSubstr("c.yaml:4: allocate.average_bits: 2.5 is less"));
  EXPECT_THAT(problem("candidates: [3, 2.5]"), HasSubstr("expected whole bits, found 2.5"));
  EXPECT_THAT(problem("reasoning: q.jsonl"), HasSubstr("allocate.reasoning.0.path"));
}

TEST_F(TrainingTest, ConfigurationsBuiltInCodeAreCheckedToo) {
  Config config;
  try {
    validate_for_training(config);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("model.path is missing"), HasSubstr("data.train: there is no text"),
                                    HasSubstr("how long?"), HasSubstr("without a quantization section")));
  }
  config.model.path = dir_ / "m";
  config.data.train = {{.path = dir_ / "a.txt"}};
  config.train.max_tokens = 1;
  config.quantization.emplace();
  EXPECT_NO_THROW(validate_for_training(config));
}

}  // namespace
}  // namespace satin::config::test
