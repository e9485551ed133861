#include "losses/smoothness.h"

#include "losses/loss_support.h"

namespace satin::losses {
namespace {
using test::evaluate;
constexpr double kInf = std::numeric_limits<double>::infinity();

test::LogitChunk chunk_of(at::Tensor student, at::Tensor teacher) {
  const int64_t n = student.size(0);
  return {student, teacher, at::zeros({n}, at::kLong), at::full({n}, 1.0 / n, student.options())};
}

TEST(Smoothness, AtTemperatureOneIsTheKlWithTheRestInOneBucket) {
  at::Tensor s = test::random_logits(8, 50, 1), z = test::random_logits(8, 50, 2);
  for (int64_t k : {1, 7, 40, 49}) {
    at::Tensor order = z.argsort(1, /*descending=*/true);
    auto buckets = [&](const at::Tensor& x) {
      at::Tensor sorted = x.softmax(1).gather(1, order);
      return at::cat({sorted.narrow(1, 0, k), sorted.narrow(1, k, 50 - k).sum(1, true)}, 1);
    };
    at::Tensor p = buckets(z), q = buckets(s);
    EXPECT_NEAR(evaluate(Smoothness(k, 1), chunk_of(s, z)).value.item<double>(),
                (p * (p / q).log()).sum(1).mean().item<double>(), 1e-13);
  }
}

TEST(Smoothness, OfTheTeacherItselfIsExactlyZero) {
  for (double spread : {0.1, 2.0, 30.0, 1e4})
    for (auto dtype : {at::kFloat, at::kDouble})
      for (int64_t k : {1, 40, 99, 100, 1000})
        for (int64_t num_tokens : {0, 90}) {
          at::Tensor z = test::random_logits(16, 100, 3, spread).to(dtype);
          auto [value, grad] = evaluate(Smoothness(k, 2, num_tokens), chunk_of(z, z.clone()));
          EXPECT_EQ(value.item<double>(), 0) << spread << " " << k;
          EXPECT_EQ(grad.abs().max().item<double>(), 0) << spread << " " << k;
        }
}

TEST(Smoothness, TiesGoToTheLowerId) {
  at::Tensor z = at::zeros({1, 6}, at::kDouble);  // top 2 of equals: ids 0 and 1
  at::Tensor s = at::tensor({1.0, 3.0, 0.5, -1.0, 2.0, 0.0}, at::kDouble).unsqueeze(0);
  at::Tensor sigma = s.softmax(1)[0];
  const double Q = (sigma[0] + sigma[1]).item<double>(), P = 1. / 3, tau = 2;
  auto tempered = (s.narrow(1, 0, 2) / tau).log_softmax(1);
  const double inside = -std::log(2.0) - tempered.mean().item<double>();
  const double want = P * tau * tau * inside + P * std::log(P / Q) + (1 - P) * std::log((1 - P) / (1 - Q));
  EXPECT_NEAR(evaluate(Smoothness(2, tau), chunk_of(s, z)).value.item<double>(), want, 1e-14);
}

TEST(Smoothness, ExcludedIdsInBothChangeNothing) {
  at::Tensor s = test::random_logits(5, 30, 4), z = test::random_logits(5, 30, 5);
  at::Tensor padding = at::full({5, 4}, -kInf, at::kDouble);
  at::Tensor wide_s = at::cat({s.narrow(1, 0, 11), padding, s.narrow(1, 11, 19)}, 1);
  at::Tensor wide_z = at::cat({z.narrow(1, 0, 11), padding, z.narrow(1, 11, 19)}, 1);
  for (int64_t k : {3, 29, 30, 32, 34, 80}) {
    auto narrow = evaluate(Smoothness(k, 2), chunk_of(s, z));
    auto wide = evaluate(Smoothness(k, 2), chunk_of(wide_s, wide_z));
    EXPECT_NEAR(narrow.value.item<double>(), wide.value.item<double>(), 1e-13) << k;
    EXPECT_LT(
        test::largest_difference(narrow.grad, at::cat({wide.grad.narrow(1, 0, 11), wide.grad.narrow(1, 15, 19)}, 1)),
        1e-13);
    EXPECT_EQ(wide.grad.narrow(1, 11, 4).abs().max().item<double>(), 0);
  }
}

TEST(Smoothness, PaddingOfTheVocabularyIsNeverAmongTheTopK) {
  at::Tensor s = test::random_logits(5, 30, 6), z = test::random_logits(5, 30, 7);
  z.narrow(1, 25, 5).fill_(9);  // the largest logits, and padding
  auto got = evaluate(Smoothness(4, 2, 25), chunk_of(s, z));
  at::Tensor K = std::get<1>(z.narrow(1, 0, 25).topk(4, 1));
  at::Tensor P = z.softmax(1).gather(1, K).sum(1), Q = s.softmax(1).gather(1, K).sum(1);
  at::Tensor lp = (z.gather(1, K) / 2).log_softmax(1), lq = (s.gather(1, K) / 2).log_softmax(1);
  at::Tensor want = P * 4 * (lp.exp() * (lp - lq)).sum(1) + P * (P / Q).log() + (1 - P) * ((1 - P) / (1 - Q)).log();
  EXPECT_NEAR(got.value.item<double>(), want.mean().item<double>(), 1e-13);
}

TEST(Smoothness, SurvivesAdversarialLogits) {
  constexpr int64_t N = 6, V = 64;
  at::Tensor big = test::random_logits(N, V, 8, 1e4).to(at::kFloat),
             other = test::random_logits(N, V, 9, 1e4).to(at::kFloat);
  at::Tensor equal = at::full({N, V}, -1e4f);
  at::Tensor one_hot = at::full({N, V}, -1e4f);
  one_hot.select(1, 17).fill_(1e4f);
  for (int64_t k : {1, 40, 63, 64})
    for (const at::Tensor& z : {big, equal, one_hot})
      for (const at::Tensor& s : {big, other, equal, one_hot}) {
        auto [value, grad] = evaluate(Smoothness(k, 2), chunk_of(s, z));
        EXPECT_TRUE(std::isfinite(value.item<double>()));
        EXPECT_GE(value.item<double>(), -1e-5);
        EXPECT_TRUE(at::isfinite(grad).all().item<bool>());
        EXPECT_LT(grad.sum(1).abs().max().item<double>(), 1e-5);
      }
}

}  // namespace
}  // namespace satin::losses
