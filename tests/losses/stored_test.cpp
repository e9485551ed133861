// Losses against a teacher of whom only the top k is stored: with nothing rounded they are those against its logits.
#include "core/error.h"
#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/head.h"
#include "losses/loss_support.h"
#include "losses/smoothness.h"

namespace satin::losses {
namespace {

/// What a cache holds of these logits, before rounding.
ops::StoredTopK store(const at::Tensor& z, int64_t k) {
  const ops::TopK top = ops::top_k(z, k);
  const at::Tensor rest = z.scatter(1, top.ids, -INFINITY), total = z.logsumexp(1);
  return {top.ids.to(at::kInt), top.values - top.values.narrow(1, 0, 1), rest.logsumexp(1) - total,
          top.values.logsumexp(1) - total};
}

test::Outcome evaluate(const LogitLoss& loss, const test::LogitChunk& chunk, const ops::StoredTopK& stored) {
  ops::LogitLosses losses;
  loss.set(losses, 1);
  at::Tensor grad = at::full_like(chunk.student, NAN);
  const at::Tensor values = ops::stored_losses(losses, chunk.student, stored, chunk.targets, chunk.weights, grad);
  return {values[loss.row()].sum(), grad};
}

TEST(StoredTeacher, GivesTheLossesOfItsLogits) {
  constexpr int64_t N = 6, V = 50;
  test::LogitChunk chunk{test::random_logits(N, V, 1), test::random_logits(N, V, 2), at::arange(N, at::kLong),
                         at::rand({N}, at::kDouble)};
  chunk.weights[4] = 0;
  for (int64_t k : {1, 7, 49, 50}) {
    const ops::StoredTopK stored = store(chunk.teacher, k);
    const auto expect = [&](const LogitLoss& with_stored, const LogitLoss& with_logits) {
      const auto got = evaluate(with_stored, chunk, stored), want = test::evaluate(with_logits, chunk);
      EXPECT_NEAR(got.value.item<double>(), want.value.item<double>(), 1e-13) << k;
      EXPECT_LT(test::largest_difference(got.grad, want.grad), 1e-13) << k;
    };
    expect(CrossEntropy(), CrossEntropy());
    expect(Smoothness(k, 2), Smoothness(k, 2));
    expect(Distillation(1), Smoothness(k, 1));  // the KL with everything outside the top k as one bucket
    if (k == V) expect(Distillation(1), Distillation(1));
  }
}

TEST(StoredTeacher, OfItselfIsZero) {
  const at::Tensor z = test::random_logits(5, 40, 3);
  const test::LogitChunk chunk{z, {}, at::zeros({5}, at::kLong), at::ones({5}, at::kDouble)};
  for (const auto& [value, grad] :
       {evaluate(Smoothness(8, 2), chunk, store(z, 8)), evaluate(Distillation(1), chunk, store(z, 8))}) {
    EXPECT_NEAR(value.item<double>(), 0, 1e-14);
    EXPECT_LT(grad.abs().max().item<double>(), 1e-14);
  }
}

TEST(StoredTeacher, MayHaveFewerCandidates) {
  at::Tensor z = test::random_logits(3, 20, 4);
  z.narrow(1, 0, 15).fill_(-INFINITY);
  const test::LogitChunk chunk{test::random_logits(3, 20, 5), z, at::zeros({3}, at::kLong), at::ones({3}, at::kDouble)};
  ops::StoredTopK stored = store(z, 8);
  stored.ids.masked_fill_(stored.logits == -INFINITY, 0);  // id 0 is not meant
  const auto got = evaluate(Smoothness(8, 2), chunk, stored), want = test::evaluate(Smoothness(8, 2), chunk);
  EXPECT_NEAR(got.value.item<double>(), want.value.item<double>(), 1e-13);
  EXPECT_LT(test::largest_difference(got.grad, want.grad), 1e-13);
}

TEST(StoredTeacher, TakesTheLogitsPlaceInTheHead) {
  constexpr int64_t N = 30, V = 64, H = 12;
  at::manual_seed(6);
  const auto random = [](int64_t rows) { return at::randn({rows, H}, at::kDouble); };
  HeadInputs in;
  in.hidden = random(N);
  in.head = random(V);
  in.teacher_hidden = random(N);
  in.teacher_head = random(V);
  in.targets = at::randint(V, {N}, at::kLong);
  in.weights = at::full({N}, 1.0 / N, at::kDouble);
  const CrossEntropy ce;
  const Smoothness sharp(9, 1), soft(9, 2);
  const Distillation kd(1);
  HeadInputs stored = in;
  stored.stored_teacher = store(head_logits(in.teacher_hidden, in.teacher_head), 9);
  stored.teacher_hidden = stored.teacher_head = at::Tensor();
  const HeadResult got = head_losses(stored, {{&ce, 0.5}, {&kd, 1}, {&soft, 0.3}}, 7);
  const HeadResult want_soft = head_losses(in, {{&ce, 0.5}, {&soft, 0.3}}, 7),
                   want_sharp = head_losses(in, {{&sharp, 1}}, 7);
  EXPECT_NEAR(got.values.at("ce").item<double>(), want_soft.values.at("ce").item<double>(), 1e-13);
  EXPECT_NEAR(got.values.at("smoothness").item<double>(), want_soft.values.at("smoothness").item<double>(), 1e-13);
  EXPECT_NEAR(got.values.at("kd").item<double>(), want_sharp.values.at("smoothness").item<double>(), 1e-13);
  EXPECT_LT(test::largest_difference(got.grad_hidden, want_soft.grad_hidden + want_sharp.grad_hidden), 1e-13);
  EXPECT_LT(test::largest_difference(got.grad_head, want_soft.grad_head + want_sharp.grad_head), 1e-13);
}

TEST(StoredTeacher, RefusesWhatItCannotGive) {
  const at::Tensor z = test::random_logits(2, 10, 7);
  const test::LogitChunk chunk{z, {}, at::zeros({2}, at::kLong), at::ones({2}, at::kDouble)};
  EXPECT_ANY_THROW(evaluate(Distillation(2), chunk, store(z, 3)));
  EXPECT_ANY_THROW(evaluate(Distillation(1, 0), chunk, store(z, 3)));
  EXPECT_ANY_THROW(evaluate(Distillation(1, 0.5, ops::Divergence::kJensenShannon), chunk, store(z, 3)));
}

}  // namespace
}  // namespace satin::losses
