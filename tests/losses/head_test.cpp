#include "losses/head.h"

#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/loss_support.h"
#include "losses/smoothness.h"

namespace satin::losses {
namespace {

constexpr int64_t N = 37, V = 61, H = 16, Ht = 24;
const CrossEntropy kCe;
const Distillation kKd(2);
const Smoothness kSmooth(8, 2);
const std::vector<Term> kTerms{{&kCe, 0.3}, {&kKd, 1.0}, {&kSmooth, 0.5}};

HeadInputs inputs(at::ScalarType dtype) {
  at::manual_seed(11);
  auto random = [&](int64_t rows, int64_t columns) { return at::randn({rows, columns}, at::kDouble).to(dtype); };
  HeadInputs in{
      random(N, H), random(V, H) * 0.5, random(N, Ht), random(V, Ht) * 0.4, at::randint(V, {N}, at::kLong), {}};
  in.weights = at::full({N}, 1.0 / N, dtype == at::kDouble ? at::kDouble : at::kFloat);
  in.weights.narrow(0, 5, 3).zero_();
  return in;
}

TEST(Head, EqualsAutogradOfTheDenseComputation) {
  HeadInputs in = inputs(at::kDouble);
  at::Tensor h = in.hidden.clone().requires_grad_(true), W = in.head.clone().requires_grad_(true);
  at::Tensor s = h.mm(W.t()), z = in.teacher_hidden.mm(in.teacher_head.t());
  at::Tensor ce = at::cross_entropy_loss(s, in.targets, {}, at::Reduction::None);
  at::Tensor lp = (z / 2).log_softmax(1), lq = (s / 2).log_softmax(1);
  at::Tensor kd = 4 * (lp.exp() * (lp - lq)).sum(1);
  at::Tensor K = std::get<1>(z.topk(8, 1));
  at::Tensor P = z.softmax(1).gather(1, K).sum(1), Q = s.softmax(1).gather(1, K).sum(1);
  at::Tensor kp = (z.gather(1, K) / 2).log_softmax(1), kq = (s.gather(1, K) / 2).log_softmax(1);
  at::Tensor smooth = P * 4 * (kp.exp() * (kp - kq)).sum(1) + P * (P / Q).log() + (1 - P) * ((1 - P) / (1 - Q)).log();
  auto mean = [&](const at::Tensor& x) { return (x * in.weights).sum(); };
  auto want = torch::autograd::grad({mean(0.3 * ce + kd + 0.5 * smooth)}, {h, W});

  HeadResult got = head_losses(in, kTerms, 10);
  EXPECT_NEAR(got.values.at("ce").item<double>(), mean(ce).item<double>(), 1e-13);
  EXPECT_NEAR(got.values.at("kd").item<double>(), mean(kd).item<double>(), 1e-13);
  EXPECT_NEAR(got.values.at("smoothness").item<double>(), mean(smooth).item<double>(), 1e-13);
  EXPECT_LT(test::relative_error(got.grad_hidden, want[0]), 1e-13);
  EXPECT_LT(test::relative_error(got.grad_head, want[1]), 1e-13);
}

TEST(Head, ChunkSizeChangesRoundingOnly) {
  for (auto dtype : {at::kDouble, at::kFloat}) {
    HeadInputs in = inputs(dtype);
    HeadResult whole = head_losses(in, kTerms, 1000);
    const double tolerance = dtype == at::kDouble ? 1e-13 : 2e-6;
    for (int64_t chunk : {1, 7, 36, 37}) {
      HeadResult part = head_losses(in, kTerms, chunk);
      for (const auto& [name, value] : whole.values)
        EXPECT_NEAR(part.values.at(name).item<double>() / value.item<double>(), 1, tolerance) << name;
      EXPECT_LT(test::relative_error(part.grad_hidden, whole.grad_hidden), tolerance);
      EXPECT_LT(test::relative_error(part.grad_head, whole.grad_head), tolerance);
    }
  }
}

TEST(Head, Bfloat16StaysNearDouble) {
  HeadInputs low = inputs(at::kBFloat16);
  HeadInputs exact = low;
  for (at::Tensor* x : {&exact.hidden, &exact.head, &exact.teacher_hidden, &exact.teacher_head, &exact.weights})
    *x = x->to(at::kDouble);
  HeadResult got = head_losses(low, kTerms, 16), want = head_losses(exact, kTerms, 16);
  EXPECT_EQ(got.grad_hidden.scalar_type(), at::kBFloat16);
  EXPECT_EQ(got.grad_head.scalar_type(), at::kFloat);
  for (const auto& [name, value] : want.values)  // logits are fp32 products of the same bf16 numbers
    EXPECT_NEAR(got.values.at(name).item<double>() / value.item<double>(), 1, 1e-5) << name;
  EXPECT_LT(test::relative_error(got.grad_hidden, want.grad_hidden), 5e-3);
  EXPECT_LT(test::relative_error(got.grad_head, want.grad_head), 5e-3);
}

TEST(Head, MaskedRowsHoldAnything) {
  HeadInputs clean = inputs(at::kFloat), dirty = inputs(at::kFloat);
  dirty.hidden.narrow(0, 5, 3).fill_(NAN);
  dirty.teacher_hidden.narrow(0, 5, 3).fill_(INFINITY);
  dirty.targets.narrow(0, 5, 3).fill_(-100);
  HeadResult a = head_losses(clean, kTerms, 8), b = head_losses(dirty, kTerms, 8);
  for (const auto& [name, value] : a.values) EXPECT_EQ(value.item<float>(), b.values.at(name).item<float>()) << name;
  EXPECT_TRUE(at::equal(a.grad_hidden, b.grad_hidden));
  EXPECT_TRUE(at::equal(a.grad_head, b.grad_head));
  EXPECT_EQ(a.grad_hidden.narrow(0, 5, 3).abs().max().item<float>(), 0);
}

TEST(Head, TermsWithoutWeightAreNotComputed) {
  HeadInputs in = inputs(at::kFloat);
  in.teacher_hidden = in.teacher_head = at::Tensor();
  HeadResult got = head_losses(in, {{&kCe, 1}, {&kKd, 0}}, 8);
  EXPECT_EQ(got.values.size(), 1u);
  EXPECT_THROW(head_losses(in, kTerms, 8), InternalError);
  HeadResult nothing = head_losses(in, {}, 8);
  EXPECT_EQ(nothing.grad_hidden.abs().max().item<float>(), 0);
  EXPECT_EQ(nothing.grad_head.abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace satin::losses
