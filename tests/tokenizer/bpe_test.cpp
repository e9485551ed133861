// BPE against its definition: merge, again and again, the leftmost pair of the lowest rank.
#include "tokenizer/bpe.h"

#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "support/test_support.h"
#include "tokenizer/json_node.h"

namespace satin::tokenizer {
namespace {

struct Rules {
  nlohmann::json model;
  std::map<std::pair<std::string, std::string>, int> ranks;
};

Rules random_rules(std::mt19937& random, const std::string& alphabet, int num_merges) {
  Rules rules;
  std::vector<std::string> tokens;
  nlohmann::json vocab = nlohmann::json::object(), merges = nlohmann::json::array();
  for (const char c : alphabet) tokens.emplace_back(1, c);
  while (static_cast<int>(merges.size()) < num_merges) {
    const std::string left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
    if (left.size() + right.size() > 12 || rules.ranks.count({left, right})) continue;
    rules.ranks[{left, right}] = static_cast<int>(merges.size());
    merges.push_back({left, right});
    tokens.push_back(left + right);
  }
  for (const auto& token : tokens) vocab.emplace(token, vocab.size());
  rules.model = {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
  return rules;
}

std::vector<std::string> by_definition(const Rules& rules, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    int best_rank = INT32_MAX;
    size_t best = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank = rules.ranks.find({parts[i], parts[i + 1]});
      if (rank != rules.ranks.end() && rank->second < best_rank) best_rank = rank->second, best = i;
    }
    if (best_rank == INT32_MAX) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + best + 1);
  }
}

}  // namespace

TEST(Bpe, EqualsTheDefinitionForShortAndLongWords) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 60; ++trial) {
    const Rules rules = random_rules(random, trial % 2 ? "abcdefgh" : "ab", trial % 2 ? 25 : 12);
    const bool byte_level = trial % 3 == 0;  // else text is cut where no merge joins
    const Bpe bpe = Bpe::parse(JsonNode(rules.model, "test"), byte_level);
    WordCache cache;
    for (int k = 0; k < 40; ++k) {
      std::string word(1 + random() % (k % 4 ? 40 : 300), ' ');
      for (char& c : word) c = static_cast<char>('a' + random() % (trial % 2 ? 8 : 2));
      std::vector<Symbol> symbols;
      bpe.encode(word, cache, symbols);
      std::vector<std::string> found;
      for (const Symbol& symbol : symbols) {
        found.push_back(word.substr(symbol.begin, symbol.end - symbol.begin));
        ASSERT_EQ(symbol.id, rules.model["vocab"][found.back()]);
      }
      ASSERT_EQ(found, by_definition(rules, word)) << word;
    }
  }
}

TEST(Bpe, LongWordsAreNotQuadratic) {
  std::mt19937 random(2);
  const Rules rules = random_rules(random, "abcdefgh", 60);
  const Bpe bpe = Bpe::parse(JsonNode(rules.model, "test"), true);
  const auto seconds = [&](size_t size) {
    std::string word(size, ' ');
    for (char& c : word) c = static_cast<char>('a' + random() % 8);
    WordCache cache;
    std::vector<Symbol> symbols;
    const auto start = std::chrono::steady_clock::now();
    bpe.encode(word, cache, symbols);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  EXPECT_LT(seconds(100'000), 2.0);
  EXPECT_LT(seconds(1'000'000), 20.0);
}

}  // namespace satin::tokenizer
