#include "losses/loss_support.h"

namespace satin::losses {
namespace {

/// A stable sort of the negated values is the definition.
at::Tensor by_sorting(const at::Tensor& logits, int64_t k) {
  return std::get<1>(logits.sort(/*stable=*/true, 1, /*descending=*/true)).narrow(1, 0, k);
}

TEST(TopK, TiesGoToTheLowerIdInOrder) {
  at::manual_seed(1);
  at::Tensor logits = at::randint(-4, 4, {40, 200}).to(at::kFloat);
  logits[0].zero_();
  logits[1].fill_(-INFINITY);
  logits[1][100] = 0;
  logits[2].index_fill_(0, at::arange(0, 200, 2, at::kLong), -0.0);  // -0 and 0 tie
  for (int64_t k : {1, 2, 40, 199, 200}) {
    ops::TopK got = ops::top_k(logits, k);
    EXPECT_TRUE(at::equal(got.ids, by_sorting(logits, k))) << k;
    EXPECT_TRUE(at::equal(got.values, logits.gather(1, got.ids)));
  }
}

TEST(TopK, WithoutTies) {
  for (auto dtype : {at::kFloat, at::kDouble}) {
    at::Tensor logits = test::random_logits(20, 1000, 2).to(dtype);
    EXPECT_TRUE(at::equal(ops::top_k(logits, 40).ids, by_sorting(logits, 40)));
  }
}

}  // namespace
}  // namespace satin::losses
