#include "generate/generate.h"

#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/pretrained.h"
#include "support/test_support.h"

namespace satin::generate {
namespace {

/// Whether text is complete, valid UTF-8 as far as lead and continuation bytes go.
bool whole_characters(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t j = 1; j < length; ++j)
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0) != 0x80) return false;
    i += length;
  }
  return true;
}

TEST(Generate, GreedyEqualsTransformers) {
  SATIN_NEEDS_PYTHON("transformers");
  const test::TempDir dir;
  const auto made = test::run_python("generate/tiny_model.py " + dir.path().string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  const auto tokenizer = tokenizer::Tokenizer::load(dir.path());
  const auto decoder = io::load_pretrained(dir.path(), nn::dense_linear_factory(), {});
  const auto cases = nlohmann::json::parse(test::read_file(dir / "greedy.json"));
  GenerateOptions options{.max_new_tokens = 40, .stop_ids = stop_ids(decoder->config(), tokenizer)};
  EXPECT_EQ(options.stop_ids.size(), 2u);
  bool first = true;
  for (const auto& c : cases) {
    SCOPED_TRACE(c["prompt"].get<std::string>());
    std::string streamed;
    const Generated out = generate(*decoder, tokenizer, c["prompt_ids"], options, [&](std::string_view piece) {
      EXPECT_TRUE(whole_characters(piece)) << piece;
      streamed += piece;
    });
    EXPECT_EQ(out.ids, c["ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(out.text, c["text"].get<std::string>());
    EXPECT_EQ(streamed, out.text);
    if (first) {
      EXPECT_TRUE(out.stopped);
    }
    EXPECT_EQ(out.stopped, out.ids.size() < 40);
    first = false;
  }

  // All at once: every one as transformers continues it alone.
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& c : cases) prompts.push_back(c["prompt_ids"]);
  const auto together = generate(*decoder, tokenizer, prompts, options);
  ASSERT_EQ(together.size(), cases.size());
  for (size_t i = 0; i < together.size(); ++i) {
    EXPECT_EQ(together[i].ids, cases[i]["ids"].get<std::vector<int32_t>>()) << i;
    EXPECT_EQ(together[i].text, cases[i]["text"].get<std::string>()) << i;
    EXPECT_EQ(together[i].stopped, together[i].ids.size() < 40) << i;
  }

  GenerateOptions random{.max_new_tokens = 30, .sampling = {.temperature = 1.2, .top_k = 50, .top_p = 0.9, .seed = 4}};
  const std::vector<int32_t> prompt = cases[0]["prompt_ids"];
  const auto ids = generate_ids(*decoder, prompt, random).ids;
  EXPECT_EQ(generate_ids(*decoder, prompt, random).ids, ids);
  random.sampling.seed = 5;
  EXPECT_NE(generate_ids(*decoder, prompt, random).ids, ids);

  int num_seen = 0;
  EXPECT_EQ(generate_ids(*decoder, prompt, random, [&](int32_t) { return ++num_seen < 3; }).ids.size(), 3u);
  // Draws are those of each prompt alone; contexts end and stop ids come at different steps.
  prompts.push_back(std::vector<int32_t>(120, 3));
  GenerateOptions several = random;
  several.stop_ids = options.stop_ids;
  std::map<size_t, size_t> num_told;
  const auto all =
      generate_ids(*decoder, prompts, several, [&](size_t i, int32_t) { return ++num_told[i] < 25 || i != 1; });
  for (size_t i = 0; i < prompts.size(); ++i) {
    int limit = i == 1 ? 25 : 1000;
    const auto alone = generate_ids(*decoder, prompts[i], several, [&](int32_t) { return --limit > 0; });
    EXPECT_EQ(all[i].ids, alone.ids) << i;
    EXPECT_EQ(all[i].stopped, alone.stopped) << i;
    EXPECT_EQ(num_told[i], all[i].ids.size()) << i;
  }
  EXPECT_EQ(all.back().ids.size(), 9u);  // 128 - 120 + 1
  EXPECT_TRUE(generate_ids(*decoder, std::vector<std::vector<int32_t>>{}, several).empty());

  random.max_new_tokens = 1000;  // ends with the context of 128
  EXPECT_EQ(generate_ids(*decoder, prompt, random).ids.size(), 128 - prompt.size() + 1);
  EXPECT_THROW(generate_ids(*decoder, std::vector<int32_t>{}, random), UserError);
  EXPECT_THROW(generate_ids(*decoder, std::vector<int32_t>(129, 3), random), UserError);
  EXPECT_THROW(generate_ids(*decoder, std::vector<int32_t>{300}, random), UserError);
}

}  // namespace
}  // namespace satin::generate
