#include "losses/neighbourhood.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/error.h"
#include "ops/logit_losses.h"

namespace satin::losses {
namespace {

constexpr int64_t kVocab = 50, kPadding = 6;  // ids 50..55 pad the vocabulary
const std::vector<int64_t> kSpecial{0, 1, 7};

config::Neighbourhood options(double rate, int64_t depth = 1, const std::string& source = "teacher") {
  config::Neighbourhood o;
  o.rate = rate;
  o.top_k = 10;
  o.temperature = 2;
  o.depth = depth;
  o.source = source;
  return o;
}
Neighbourhood sampler(const config::Neighbourhood& o, uint64_t seed = 5) { return {o, kVocab, kSpecial, seed, 333}; }

/// A bigram model: the logits after token a are row a of `table`.
Source bigram(const at::Tensor& table, int* num_calls = nullptr) {
  return [=](const at::Tensor& tokens) {
    if (num_calls) ++*num_calls;
    return SourceStates{at::one_hot(tokens, table.size(0)).to(at::kFloat), table.t().contiguous()};
  };
}
at::Tensor random_table() {
  at::manual_seed(3);
  return at::randn({kVocab + kPadding, kVocab + kPadding}) * 3;
}

CleanWindows windows(int64_t B, int64_t T, uint64_t first_id = 100) {
  at::manual_seed(4);
  CleanWindows clean{at::randint(kVocab, {B, T}, at::kLong), at::rand({B, T}) < 0.03, {}};
  for (int64_t b = 0; b < B; ++b) clean.sample_ids.push_back(first_id + 10 * b);
  return clean;
}

/// Positions that may be replaced.
at::Tensor replaceable(const CleanWindows& clean) {
  at::Tensor may = clean.document_starts.logical_not();
  for (int64_t id : kSpecial) may = may.logical_and(clean.tokens != id);
  may.select(1, 0).fill_(false);
  return may;
}

double p_value(const std::vector<double>& counts, const std::vector<double>& expected) {
  double chi_square = 0;
  for (size_t i = 0; i < counts.size(); ++i) chi_square += std::pow(counts[i] - expected[i], 2) / expected[i];
  const double freedom = static_cast<double>(counts.size()) - 1;
  return at::special_gammaincc(at::tensor(freedom / 2, at::kDouble), at::tensor(chi_square / 2, at::kDouble))
      .item<double>();
}

std::vector<double> counts_by_id(const at::Tensor& drawn) {
  at::Tensor counts = at::bincount(drawn.reshape(-1), {}, kVocab + kPadding).to(at::kDouble).contiguous();
  return {counts.const_data_ptr<double>(), counts.const_data_ptr<double>() + counts.numel()};
}

TEST(Neighbourhood, RateZeroReturnsTheTensorAndCallsNothing) {
  CleanWindows clean = windows(3, 20);
  at::Tensor same = sampler(options(0)).perturb(clean.tokens, clean, [](const at::Tensor&) -> SourceStates {
    throw std::logic_error("called");
  });
  EXPECT_TRUE(same.is_same(clean.tokens));
}

TEST(Neighbourhood, FrequenciesAreThoseOfTheTemperedTopK) {
  at::Tensor table = random_table();
  table[13].narrow(0, kVocab, kPadding).fill_(50);  // padding and specials would win
  for (int64_t id : kSpecial) table[13][id] = 40;
  CleanWindows clean{at::full({80, 500}, 13, at::kLong), {}, {}};
  for (uint64_t b = 0; b < 80; ++b) clean.sample_ids.push_back(b);
  at::Tensor drawn = sampler(options(1)).perturb(clean.tokens, clean, bigram(table)).narrow(1, 1, 499);

  std::vector<std::pair<double, int64_t>> candidates;  // the definition, in scalars
  for (int64_t id = 0; id < kVocab; ++id)
    if (std::find(kSpecial.begin(), kSpecial.end(), id) == kSpecial.end())
      candidates.emplace_back(-table[13][id].item<double>(), id);
  std::sort(candidates.begin(), candidates.end());
  double total = 0;
  for (int i = 0; i < 10; ++i) total += std::exp(-candidates[i].first / 2);
  std::vector<double> counts = counts_by_id(drawn), top, expected;
  for (int i = 0; i < 10; ++i) {
    expected.push_back(80 * 499 * std::exp(-candidates[i].first / 2) / total);
    top.push_back(counts[candidates[i].second]);
  }
  EXPECT_EQ(std::accumulate(top.begin(), top.end(), 0.0), 80 * 499);
  EXPECT_GT(p_value(top, expected), 1e-4);
}

TEST(Neighbourhood, TiesGoToTheLowerIds) {
  CleanWindows clean = windows(20, 100);
  at::Tensor out = sampler(options(1)).perturb(clean.tokens, clean, bigram(at::zeros({kVocab, kVocab})));
  at::Tensor drawn = out.masked_select(replaceable(clean));
  std::vector<double> counts = counts_by_id(drawn), top;
  for (int64_t id : {2, 3, 4, 5, 6, 8, 9, 10, 11, 12}) top.push_back(counts[id]);
  EXPECT_EQ(std::accumulate(top.begin(), top.end(), 0.0), drawn.numel());
  EXPECT_GT(p_value(top, std::vector<double>(10, drawn.numel() / 10.0)), 1e-4);
}

TEST(Neighbourhood, RandomControlIsUniformAndCallsNothing) {
  CleanWindows clean = windows(60, 500);
  at::Tensor out = sampler(options(1, 1, "random")).perturb(clean.tokens, clean, nullptr);
  at::Tensor drawn = out.masked_select(replaceable(clean));
  std::vector<double> counts = counts_by_id(drawn), allowed;
  for (int64_t id = 0; id < kVocab; ++id)
    if (std::find(kSpecial.begin(), kSpecial.end(), id) == kSpecial.end()) allowed.push_back(counts[id]);
  EXPECT_EQ(std::accumulate(allowed.begin(), allowed.end(), 0.0), drawn.numel());
  EXPECT_GT(p_value(allowed, std::vector<double>(allowed.size(), drawn.numel() / double(allowed.size()))), 1e-4);
  EXPECT_TRUE(at::equal(out.masked_select(replaceable(clean).logical_not()),
                        clean.tokens.masked_select(replaceable(clean).logical_not())));
}

TEST(Neighbourhood, AShareIsRandom) {
  // The source says 30 + a % 10 after a; random tokens are the others, so each replaced token shows whose it is.
  CleanWindows clean = windows(60, 500);
  at::Tensor table = at::full({kVocab, kVocab}, -1e4f);
  for (int64_t a = 0; a < kVocab; ++a) table[a][30 + a % 10] = 1e4;
  config::Neighbourhood mixed = options(1);
  mixed.random_share = 0.3;
  const at::Tensor may = replaceable(clean);
  const at::Tensor out = sampler(mixed).perturb(clean.tokens, clean, bigram(table));
  const at::Tensor of_source = (clean.tokens.roll(1, 1).remainder(10) + 30).masked_select(may);
  const at::Tensor drawn = out.masked_select(may), random = drawn != of_source;
  const double n = drawn.numel(), seen = 0.3 * 46 / 47;  // of 47 drawable ids one is the source's
  EXPECT_NEAR(random.sum().item<double>() / n, seen, 5 * std::sqrt(0.3 * 0.7 / n));
  // Uniform over all drawable ids but the source's: ids below 30 are never the source's.
  const std::vector<double> counts = counts_by_id(drawn);
  std::vector<double> below;
  for (int64_t id = 0; id < 30; ++id)
    if (std::find(kSpecial.begin(), kSpecial.end(), id) == kSpecial.end()) below.push_back(counts[id]);
  EXPECT_NEAR(std::accumulate(below.begin(), below.end(), 0.0) / n, 0.3 * 27 / 47, 0.01);
  EXPECT_GT(p_value(below,
                    std::vector<double>(below.size(), std::accumulate(below.begin(), below.end(), 0.0) / below.size())),
            1e-4);
  for (int64_t id : kSpecial) EXPECT_EQ(counts[id], 0);

  // Whether a token is random is its own question: it does not move which positions are replaced, nor other draws.
  mixed.rate = 0.2;
  const at::Tensor some = sampler(mixed).perturb(clean.tokens, clean, bigram(table));
  const at::Tensor none = sampler(options(0.2)).perturb(clean.tokens, clean, bigram(table));
  const at::Tensor all = sampler(options(0.2, 1, "random")).perturb(clean.tokens, clean, nullptr);
  const at::Tensor is_none = some == none, is_all = some == all;
  EXPECT_TRUE(is_none.logical_or(is_all).all().item<bool>()) << "neither the source's draw nor the random one";
  EXPECT_FALSE(is_none.all().item<bool>());
  EXPECT_FALSE(is_all.all().item<bool>());
}

TEST(Neighbourhood, AllRandomIsTheRandomSource) {
  const CleanWindows clean = windows(8, 100);
  for (const int64_t depth : {1, 3}) {
    config::Neighbourhood all = options(0.3, depth);
    all.random_share = 1;
    EXPECT_FALSE(sampler(all).needs_source());
    EXPECT_EQ(sampler(all).num_source_calls(1, false), 0);
    EXPECT_TRUE(at::equal(sampler(all).perturb(clean.tokens, clean, nullptr),
                          sampler(options(0.3, depth, "random")).perturb(clean.tokens, clean, nullptr)));
  }
}

TEST(Neighbourhood, RateAndWhatIsNeverTouched) {
  CleanWindows clean = windows(60, 500);
  at::Tensor before = clean.tokens.clone(), may = replaceable(clean);
  // A source that never proposes the clean token: what changed is what was replaced.
  at::Tensor table = at::full({kVocab, kVocab}, -100.0f);
  for (int64_t a = 0; a < kVocab; ++a) table[a][20] = 100;
  clean.tokens.masked_fill_(clean.tokens == 20, 21);
  for (double rate : {0.05, 0.15, 0.5}) {
    at::Tensor out = sampler(options(rate)).perturb(clean.tokens, clean, bigram(table));
    at::Tensor changed = out != clean.tokens;
    EXPECT_FALSE(changed.logical_and(may.logical_not()).any().item<bool>());
    EXPECT_TRUE((out.masked_select(changed) == 20).all().item<bool>());
    const double n = may.sum().item<double>(), share = changed.sum().item<double>() / n;
    EXPECT_NEAR(share, rate, 4 * std::sqrt(rate * (1 - rate) / n));
  }
  EXPECT_TRUE(at::equal(before.masked_fill(before == 20, 21), clean.tokens)) << "the clean tokens were written to";
}

TEST(Neighbourhood, AScheduledRateReplacesMoreAndMoreByTheSameDraws) {
  CleanWindows clean = windows(40, 500);
  at::Tensor table =
      at::full({kVocab, kVocab}, -100.0f);  // never proposes the clean token, and nothing is left to chance
  for (int64_t a = 0; a < kVocab; ++a) table[a][20 + a % 20] = 100;
  clean.tokens.remainder_(20);
  config::Neighbourhood scheduled = options(0.4);
  scheduled.start = 0.25;
  scheduled.ramp = 0.5;
  const Neighbourhood growing = sampler(scheduled);
  EXPECT_TRUE(growing.enabled());
  for (double before : {0.0, 0.1, 0.249, 0.25}) {
    EXPECT_TRUE(growing.perturb(clean.tokens, clean, nullptr, {}, before).is_same(clean.tokens)) << before;
    EXPECT_EQ(growing.num_source_calls(before, false), 0);
  }
  const double n = replaceable(clean).sum().item<double>();
  at::Tensor changed = at::zeros_like(clean.tokens, at::kBool), last;
  for (double progress : {0.3, 0.5, 0.7, 0.75, 0.9}) {
    const double rate = 0.4 * std::min(1.0, (progress - 0.25) / 0.5);
    EXPECT_DOUBLE_EQ(growing.rate_at(progress), rate);
    EXPECT_EQ(growing.num_source_calls(progress, false), 1);
    const at::Tensor now = growing.perturb(clean.tokens, clean, bigram(table), {}, progress);
    const at::Tensor changed_now = now != clean.tokens;
    EXPECT_NEAR(changed_now.sum().item<double>() / n, rate, 4 * std::sqrt(rate * (1 - rate) / n)) << progress;
    EXPECT_TRUE(changed_now.logical_or(changed.logical_not()).all().item<bool>()) << "one went back";
    if (!last.defined()) last = now;
    EXPECT_TRUE(at::equal(now.masked_select(changed), last.masked_select(changed))) << "a draw changed";
    changed = changed_now, last = now;
  }
  EXPECT_TRUE(at::equal(last, sampler(options(0.4)).perturb(clean.tokens, clean, bigram(table))));
}

TEST(Neighbourhood, AnyMicroBatchSplitAndOrder) {
  at::Tensor table = random_table();
  CleanWindows clean = windows(4, 200);
  for (int64_t depth : {1, 3}) {
    Neighbourhood n = sampler(options(0.3, depth));
    at::Tensor whole = n.perturb(clean.tokens, clean, bigram(table));
    for (int64_t b : {2, 0, 3, 1}) {
      CleanWindows one{clean.tokens.narrow(0, b, 1), clean.document_starts.narrow(0, b, 1), {clean.sample_ids[b]}};
      EXPECT_TRUE(at::equal(n.perturb(one.tokens, one, bigram(table))[0], whole[b]));
    }
    at::Tensor again =
        Neighbourhood(options(0.3, depth), kVocab, kSpecial, 5, 7).perturb(clean.tokens, clean, bigram(table));
    EXPECT_TRUE(at::equal(again, whole)) << "the chunk of rows changed a draw";
    CleanWindows later = clean;
    for (uint64_t& id : later.sample_ids) id += 5;  // the same windows in another epoch
    EXPECT_FALSE(at::equal(n.perturb(later.tokens, later, bigram(table)), whole));
    EXPECT_FALSE(at::equal(sampler(options(0.3, depth), 6).perturb(clean.tokens, clean, bigram(table)), whole));
  }
}

TEST(Neighbourhood, WalksByBruteForce) {
  // Deterministic source: after a comes step(a), never special and, with the clean tokens below 25, never a clean
  // token.
  const auto step = [](int64_t a) { return 25 + (7 * a + 3) % 25; };
  at::Tensor table = at::full({kVocab, kVocab}, -1e4f);
  for (int64_t a = 0; a < kVocab; ++a) table[a][step(a)] = 1e4;
  CleanWindows clean = windows(10, 120);
  clean.tokens.remainder_(25);
  at::Tensor may = replaceable(clean);
  at::Tensor starts = sampler(options(0.25)).perturb(clean.tokens, clean, bigram(table)) != clean.tokens;
  for (int64_t depth : {1, 2, 3, 5}) {
    int num_calls = 0;
    at::Tensor got = sampler(options(0.25, depth)).perturb(clean.tokens, clean, bigram(table, &num_calls));
    EXPECT_EQ(num_calls, depth);
    at::Tensor want = clean.tokens.clone();
    for (int64_t b = 0; b < 10; ++b)
      for (int64_t t = 1; t < 120; ++t) {
        if (!starts[b][t].item<bool>()) continue;
        int64_t token = clean.tokens[b][t - 1].item<int64_t>();  // a walk starts from the clean text
        int64_t at = t;
        for (; at < std::min(t + depth, int64_t{120}) && may[b][at].item<bool>(); ++at)
          want[b][at] = token = step(token);
        t = at - 1;
      }
    EXPECT_TRUE(at::equal(got, want)) << depth;
  }
}

TEST(Neighbourhood, RefusesByKey) {
  EXPECT_THROW(sampler(options(1.5)), UserError);
  EXPECT_THROW(sampler(options(0.1, 0)), UserError);
  config::Neighbourhood shrinking = options(0.1);
  shrinking.ramp = -0.5;
  EXPECT_THROW(sampler(shrinking), UserError);
  config::Neighbourhood more_than_all = options(0.1);
  more_than_all.random_share = 1.5;
  EXPECT_THROW(sampler(more_than_all), UserError);
  EXPECT_THROW(sampler(options(0.1, 1, "oracle")), UserError);
  EXPECT_THROW(Neighbourhood(options(0.1), 2, {0, 1}, 0, 8), UserError);
}

TEST(Neighbourhood, StoredCandidatesGiveTheSourcesDraws) {
  const at::Tensor table = random_table();
  const CleanWindows clean = windows(20, 64);
  const at::Tensor rows = table.index_select(0, clean.tokens.reshape(-1)).narrow(1, 0, kVocab).contiguous();
  const ops::TopK best = ops::top_k(rows, 10 + static_cast<int64_t>(kSpecial.size()));  // special ids may be among them
  StoredCandidates stored{best.ids.to(at::kInt).view({20, 64, -1}),
                          (best.values - best.values.narrow(1, 0, 1)).view({20, 64, -1})};
  for (int64_t depth : {1, 3}) {
    int num_calls = 0;
    const Neighbourhood walk = sampler(options(0.4, depth));
    const at::Tensor want = walk.perturb(clean.tokens, clean, bigram(table));
    const at::Tensor got = walk.perturb(clean.tokens, clean, bigram(table, &num_calls), stored);
    EXPECT_LE((got != want).sum().item<int64_t>(), 1) << depth;  // rounding of the offsets at a border alone
    EXPECT_EQ(num_calls, depth - 1) << "only deeper tokens need the source";
    EXPECT_EQ(walk.num_source_calls(1, /*stored=*/true), depth - 1);
    EXPECT_EQ(walk.num_source_calls(1, /*stored=*/false), depth);
  }
  stored.logits.fill_(-INFINITY);  // nothing to draw: the text stays
  EXPECT_TRUE(at::equal(sampler(options(1)).perturb(clean.tokens, clean, {}, stored), clean.tokens));
}

}  // namespace
}  // namespace satin::losses
