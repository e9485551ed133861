#include <cmath>
#include <nlohmann/json.hpp>

#include "config/fields.h"
#include "config_support.h"
#include "support/test_support.h"

namespace satin::config::test {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

/// Every leaf of a configuration, by reference, with its dotted key and spec.
template <class Visit>
struct Leaves {
  Visit visit;
  template <Section S>
  void walk(S& section, const std::string& at, bool in_list) {
    for_each_field<S>([&](const auto& row) {
      if (in_list || !row.spec.list_only) each(section.*row.member, at + "." + row.key, row.spec);
    });
  }
  template <Section S>
  void each(S& section, const std::string& at, const Spec&) {
    walk(section, at, false);
  }
  template <Section S>
  void each(std::optional<S>& section, const std::string& at, const Spec&) {
    if (section) walk(*section, at, false);
  }
  template <Section S>
  void each(std::vector<S>& items, const std::string& at, const Spec&) {
    for (size_t i = 0; i < items.size(); ++i) walk(items[i], at + "." + std::to_string(i), true);
  }
  template <class T>
  void each(T& leaf, const std::string& at, const Spec& spec) {
    visit(at, spec, leaf);
  }
};
template <class Visit>
void for_each_leaf(Config& config, Visit visit) {
  Leaves<Visit>{visit}.walk(config, "", false);
}

Config full() {
  Config config;
  config.model.path = "/m";
  config.train.output_dir = "/o";
  config.quantization.emplace().overrides = {{.match = "*.mlp.*"}, {.match = "*.q_proj", .method = "seq"}};
  config.data.train = {{.path = "/a"}, {.path = "/b"}};
  config.data.valid = {{.path = "/c"}};
  config.export_.formats = {"hf"};
  return config;
}

// A legal value other than the present one.
void change(const Spec&, bool& value) { value = !value; }
void change(const Spec& spec, int64_t& value) { value = value == 8 ? 16 : 8; }
void change(const Spec&, uint64_t& value) { value = UINT64_MAX - 1; }
void change(const Spec& spec, double& value) {
  if (std::string(spec.unit) == "bits") {
    value = value == 3 ? 4 : 3;
  } else {
    value = 1.0 / 3 + value * 1e-3;
  }
}
void change(const Spec& spec, std::string& value) {
  if (*spec.one_of) {
    for (const auto& name : alternatives(spec.one_of)) {
      // methods that fix the bits or quantize nothing have rules of their own
      if (name == value || name == "seq" || name == "ternary" || name == "none") continue;
      value = name;
      return;
    }
  } else if (spec.path) {
    value = "/a folder/it's \"quoted\": #1 \\ é 漢字";
  } else {
    value = "{x}: \"a\"\n\t# - 'b' \\n \x01 \xF0\x9F\x98\x80 null";
  }
}
void change(const Spec&, std::vector<std::string>& value) { value = {"compressed-tensors", "hf"}; }
void change(const Spec&, std::vector<double>& value) { value = {3, 4}; }
void change(const Spec&, std::vector<int64_t>& value) { value = {2, 2}; }

TEST(Dump, LoadsBackToTheSame) {
  const Config config = full();
  EXPECT_EQ(read(dump(config)), config);
  Config least;
  least.model.path = "/m";
  least.train.output_dir = "/o";
  EXPECT_EQ(read(dump(least)), least);
  EXPECT_FALSE(read(dump(least)).quantization);
}

TEST(Dump, EveryKeySurvives) {
  Config config = full();
  config.quantization->overrides[1].method = "lsq";
  std::vector<std::string> keys;
  for_each_leaf(config, [&](const std::string& key, const Spec&, auto&) { keys.push_back(key); });
  EXPECT_GT(keys.size(), 70u);
  for (const std::string& changed : keys) {
    if (changed.ends_with("overrides_from")) continue;  // read when loading, and empty from then on
    Config other = config;
    for_each_leaf(other, [&](const std::string& key, const Spec& spec, auto& leaf) {
      if (key == changed) change(spec, leaf);
    });
    ASSERT_FALSE(other == config) << changed;
    if (changed == ".data.train.0.weight") other.data.train[1].weight = 1;
    if (changed == ".data.train.1.weight") other.data.train[0].weight = 1;
    EXPECT_EQ(read(dump(other)), other) << changed << "\n" << dump(other);
  }
}

TEST(Dump, NumbersSurviveToTheLastBit) {
  for (const double value : {0.1, 1.0 / 3, 1e-8, 5e-324, 1.7976931348623157e308, 123456789.123456789, 1e22, 3e-4}) {
    Config config = full();
    config.optimizer.learning_rate = value;
    EXPECT_EQ(read(dump(config)).optimizer.learning_rate, value) << dump(config);
  }
  Config config = full();
  config.train.max_tokens = INT64_MAX;
  config.train.seed = UINT64_MAX;
  EXPECT_EQ(read(dump(config)).train.max_tokens, INT64_MAX);
  EXPECT_EQ(read(dump(config)).train.seed, UINT64_MAX);
}

TEST(Dump, PythonReadsTheSameTypesAndValues) {
  SATIN_NEEDS_PYTHON("yaml");
  satin::test::TempDir dir;
  Config config = full();
  config.optimizer.epsilon = 1e-8;
  config.optimizer.learning_rate = 1e22;
  config.data.train[0].template_ = "Q: {q}\nA: \xF0\x9F\x98\x80";
  config.data.train[0].name = "null";
  satin::test::write_file(dir / "c.yaml", dump(config));
  const auto result = satin::test::run_python("config/yaml_to_json.py " + (dir / "c.yaml").string());
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const auto json = nlohmann::json::parse(result.output);
  EXPECT_EQ(json["optimizer"]["epsilon"], 1e-8);
  EXPECT_TRUE(json["optimizer"]["learning_rate"].is_number());
  EXPECT_EQ(json["optimizer"]["learning_rate"].get<double>(), 1e22);
  EXPECT_EQ(json["data"]["train"][0]["template"], config.data.train[0].template_);
  EXPECT_EQ(json["data"]["train"][0]["name"], "null");
  EXPECT_EQ(json["data"]["train"][1]["path"], "/b");
  EXPECT_EQ(json["data"]["shuffle"], true);
  EXPECT_EQ(json["quantization"]["default"]["bits"], 2);
  EXPECT_FALSE(json["quantization"]["default"].contains("match"));
  EXPECT_EQ(json["quantization"]["overrides"][1]["match"], "*.q_proj");
  EXPECT_EQ(json["export"]["formats"], nlohmann::json({"hf"}));
  EXPECT_EQ(json["train"]["max_steps"], 0);
  EXPECT_EQ(json["teacher"]["path"], "");
}

}  // namespace
}  // namespace satin::config::test
