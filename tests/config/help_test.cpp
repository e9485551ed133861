#include <yaml-cpp/yaml.h>

#include "config/fields.h"
#include "config_support.h"

namespace satin::config::test {
namespace {

using ::testing::HasSubstr;

/// Dotted keys of the leaves of a dump, as yaml-cpp sees them; list items as [].
void collect(const YAML::Node& node, const std::string& at, std::vector<std::string>& keys) {
  if (node.IsMap()) {
    for (const auto& entry : node) {
      const auto name = entry.first.as<std::string>();
      collect(entry.second, at.empty() ? name : at + "." + name, keys);
    }
  } else if (node.IsSequence() && node.size() > 0 && node[0].IsMap()) {
    collect(node[0], at + "[]", keys);
  } else {
    keys.push_back(at);
  }
}

TEST(Help, ListsEveryKeyOfADump) {
  Config config;
  config.quantization.emplace().overrides.emplace_back();
  config.quantization->hardening.emplace_back();
  config.data.train.emplace_back();
  config.data.valid.emplace_back();
  config.allocate.reasoning.emplace_back();
  std::vector<std::string> keys;
  collect(YAML::Load(dump(config)), "", keys);
  EXPECT_GT(keys.size(), 70u);
  const std::string text = help();
  for (const std::string& key : keys) EXPECT_THAT(text, HasSubstr("\n  " + key + " = ")) << key;
  EXPECT_EQ(static_cast<size_t>(std::count(text.begin(), text.end(), '=')) >= keys.size(), true);
}

template <Section S>
void check_table(const std::string& at);

template <class T>
struct Inner {
  static void check(const std::string&) {}
};
template <Section S>
struct Inner<S> {
  static void check(const std::string& at) { check_table<S>(at); }
};
template <Section S>
struct Inner<std::optional<S>> : Inner<S> {};
template <class T>
struct Inner<std::vector<T>> : Inner<T> {};

template <Section S>
void check_table(const std::string& at) {
  for_each_field<S>([&]<class T>(const Field<S, T>& row) {
    const std::string key = at + "." + row.key, help = row.spec.help;
    EXPECT_GE(help.size(), 5u) << key;
    EXPECT_LE(help.size(), 200u) << key << ": one line of help";
    EXPECT_EQ(help.find('\n'), help.npos) << key;
    EXPECT_NE(help.back(), '.') << key;
    Inner<T>::check(key);
  });
}

TEST(Help, EveryFieldHasOneLine) { check_table<Config>("config"); }

TEST(Help, ShowsDefaultsLimitsAndSections) {
  const std::string text = help();
  EXPECT_THAT(text, HasSubstr("  loss.neighbourhood.rate = 0.15  [probability, 0 to 1]\n"));
  EXPECT_THAT(text, HasSubstr("  model.path = \"\"  [directory]  required\n"));
  EXPECT_THAT(text, HasSubstr("  optimizer.schedule = cosine  [one of cosine | linear | constant]\n"));
  EXPECT_THAT(text, HasSubstr("\noptimizer: AdamW and its schedule\n"));
  EXPECT_THAT(text, HasSubstr("\ndata.train[]: "));
}

}  // namespace
}  // namespace satin::config::test
