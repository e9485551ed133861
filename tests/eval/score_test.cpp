#include "eval/score.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/error.h"
#include "eval/tasks.h"
#include "models/tiny_model.h"
#include "support/test_support.h"

namespace satin::eval {
namespace {

struct Tiny : testing::Test {
  models::Decoder decoder{models::tiny_config(), nn::dense_linear_factory(), {}};
  Tiny() { models::randomise(decoder); }

  // The definition: one sequence, log-softmax over the whole vocabulary.
  std::vector<double> direct(const std::vector<int32_t>& sequence) {
    at::NoGradGuard no_grad;
    const at::Tensor ids = at::tensor(std::vector<int64_t>(sequence.begin(), sequence.end())).unsqueeze(0);
    const at::Tensor log_probs = decoder.logits(decoder.hidden(ids))[0].to(at::kDouble).log_softmax(1);
    std::vector<double> out;
    for (size_t t = 1; t < sequence.size(); ++t) out.push_back(log_probs[t - 1][sequence[t]].item<double>());
    return out;
  }
};

TEST_F(Tiny, PaddingAndChunksDoNotMatter) {
  const std::vector<std::vector<int32_t>> sequences = {
      {1, 2, 3, 4, 5}, {6, 7}, {8, 9, 10, 11, 12, 13, 14, 15, 16}, {17, 18, 19}};
  for (int64_t batch_tokens : {1, 12, 1000}) {
    const auto scores = score(decoder, sequences, {batch_tokens, 3, true});
    ASSERT_EQ(scores.size(), sequences.size());
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto want = direct(sequences[s]);
      ASSERT_EQ(scores[s].log_prob.size(), want.size());
      for (size_t t = 0; t < want.size(); ++t) EXPECT_NEAR(scores[s].log_prob[t], want[t], 1e-5);
    }
  }
}

TEST_F(Tiny, PerplexityFollowsTheProtocol) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < 23; ++i) tokens.push_back((i * 7 + 3) % 31);
  double sum = 0;
  for (int w = 0; w < 2; ++w)  // windows of 10; the tail of 3 is dropped
    for (double log_prob : direct({tokens.begin() + w * 10, tokens.begin() + (w + 1) * 10})) sum -= log_prob;
  const Perplexity result = perplexity(decoder, tokens, 10);
  EXPECT_EQ(result.num_windows, 2);
  EXPECT_EQ(result.num_predictions, 18);
  EXPECT_NEAR(result.nll, sum / 18, 1e-5);
  EXPECT_FALSE(result.short_window);
  EXPECT_EQ(perplexity(decoder, tokens, 10, 1).num_windows, 1);

  const Perplexity whole = perplexity(decoder, tokens, 1024);  // shorter than one window
  EXPECT_TRUE(whole.short_window);
  EXPECT_EQ(whole.num_predictions, 22);
  EXPECT_THROW(perplexity(decoder, {1}, 10), UserError);
}

}  // namespace
}  // namespace satin::eval
