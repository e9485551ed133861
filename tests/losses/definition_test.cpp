// Every loss against its definition: values, autograd of the definition, and central differences of the value, in
// double.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/loss_support.h"
#include "losses/smoothness.h"

namespace satin::losses {
namespace {

struct Definition {
  std::string label;
  std::shared_ptr<LogitLoss> loss;
  std::function<at::Tensor(const at::Tensor& s, const at::Tensor& z, const at::Tensor& targets)> definition;  // [N]
};

at::Tensor kl(const at::Tensor& log_p, const at::Tensor& log_q) { return (log_p.exp() * (log_p - log_q)).sum(1); }

at::Tensor smoothness_definition(const at::Tensor& s, const at::Tensor& z, int64_t k, double tau) {
  const at::Tensor K = std::get<1>(z.topk(k, 1));
  const at::Tensor P = z.softmax(1).gather(1, K).sum(1), Q = s.softmax(1).gather(1, K).sum(1);
  const at::Tensor inside = kl((z.gather(1, K) / tau).log_softmax(1), (s.gather(1, K) / tau).log_softmax(1));
  return P * tau * tau * inside + P * (P / Q).log() + (1 - P) * ((1 - P) / (1 - Q)).log();
}

std::vector<Definition> cases() {
  std::vector<Definition> all;
  all.push_back({"ce", std::make_shared<CrossEntropy>(), [](auto s, auto, auto targets) {
                   return at::cross_entropy_loss(s, targets, {}, at::Reduction::None);
                 }});
  for (double T : {0.5, 1.0, 3.0}) {
    all.push_back({"forward " + std::to_string(T), std::make_shared<Distillation>(T),
                   [T](auto s, auto z, auto) { return T * T * kl((z / T).log_softmax(1), (s / T).log_softmax(1)); }});
    all.push_back({"reverse " + std::to_string(T), std::make_shared<Distillation>(T, 0.0),
                   [T](auto s, auto z, auto) { return T * T * kl((s / T).log_softmax(1), (z / T).log_softmax(1)); }});
    all.push_back({"cakld " + std::to_string(T), std::make_shared<Distillation>(T, 0.3), [T](auto s, auto z, auto) {
                     auto p = (z / T).log_softmax(1), q = (s / T).log_softmax(1);
                     return T * T * (0.3 * kl(p, q) + 0.7 * kl(q, p));
                   }});
    all.push_back({"jsd " + std::to_string(T), std::make_shared<Distillation>(T, 0.3, ops::Divergence::kJensenShannon),
                   [T](auto s, auto z, auto) {
                     auto p = (z / T).log_softmax(1), q = (s / T).log_softmax(1);
                     auto m = (0.3 * p.exp() + 0.7 * q.exp()).log();
                     return T * T * (0.3 * kl(p, m) + 0.7 * kl(q, m));
                   }});
    for (int64_t k : {1, 5, 10})
      all.push_back({"smoothness " + std::to_string(k) + ", " + std::to_string(T), std::make_shared<Smoothness>(k, T),
                     [k, T](auto s, auto z, auto) { return smoothness_definition(s, z, k, T); }});
    for (int64_t k : {11, 100})
      all.push_back({"smoothness of all, " + std::to_string(T), std::make_shared<Smoothness>(k, T),
                     [T](auto s, auto z, auto) { return T * T * kl((z / T).log_softmax(1), (s / T).log_softmax(1)); }});
  }
  return all;
}

TEST(Definition, ValuesAndGradients) {
  at::set_num_threads(1);  // thousands of tiny tensors
  constexpr int64_t N = 3, V = 11;
  const at::Tensor teacher = test::random_logits(N, V, 1), targets = at::arange(N, at::kLong) * 5;
  at::Tensor weights = at::rand({N}, at::kDouble);
  weights[2] = 0;
  for (const Definition& c : cases()) {
    SCOPED_TRACE(c.label);
    at::Tensor student = test::random_logits(N, V, 2).requires_grad_(true);
    at::Tensor want = (c.definition(student, teacher, targets) * weights).sum();
    at::Tensor want_grad = torch::autograd::grad({want}, {student})[0];
    test::LogitChunk chunk{student.detach(), teacher, targets, weights};
    auto [value, grad] = test::evaluate(*c.loss, chunk);
    EXPECT_NEAR(value.item<double>(), want.item<double>(), 1e-13);
    EXPECT_LT(test::largest_difference(grad, want_grad), 1e-13);

    const double h = 1e-5;
    at::Tensor differences = at::zeros_like(grad);
    for (int64_t n = 0; n < N; ++n)
      for (int64_t v = 0; v < V; ++v) {
        double side[2];
        for (int i = 0; i < 2; ++i) {
          chunk.student = student.detach().clone();
          chunk.student[n][v] += i ? -h : h;
          side[i] = test::evaluate(*c.loss, chunk).value.item<double>();
        }
        differences[n][v] = (side[0] - side[1]) / (2 * h);
      }
    EXPECT_LT(test::largest_difference(grad, differences), 1e-9);
  }
}

TEST(Definition, InvariantToAShiftOfEitherSide) {
  constexpr int64_t N = 4, V = 11;
  test::LogitChunk chunk{test::random_logits(N, V, 3), test::random_logits(N, V, 4), at::arange(N, at::kLong),
                         at::full({N}, 0.25, at::kDouble)};
  test::LogitChunk shifted = chunk;
  shifted.student = chunk.student + at::tensor({-700.0, 3.0, 0.5, 900.0}, at::kDouble).unsqueeze(1);
  shifted.teacher = chunk.teacher + at::tensor({500.0, -2.0, 800.0, -900.0}, at::kDouble).unsqueeze(1);
  for (const Definition& c : cases()) {
    SCOPED_TRACE(c.label);
    auto a = test::evaluate(*c.loss, chunk), b = test::evaluate(*c.loss, shifted);
    EXPECT_NEAR(a.value.item<double>(), b.value.item<double>(), 1e-11);
    EXPECT_LT(test::largest_difference(a.grad, b.grad), 1e-11);
  }
}

TEST(Definition, GradientOfARowSumsToZeroAndMaskedRowsAreZero) {
  constexpr int64_t N = 5, V = 11;
  at::Tensor student = test::random_logits(N, V, 5).to(at::kFloat),
             teacher = test::random_logits(N, V, 6).to(at::kFloat);
  student[3].fill_(1e4);
  teacher[3].fill_(-1e4);
  at::Tensor weights = at::tensor({1.f, 0.5f, 0.f, 0.f, 2.f});
  test::LogitChunk chunk{student, teacher, at::tensor({0, 10, 1, 999, 7}, at::kLong), weights};
  for (const Definition& c : cases()) {
    SCOPED_TRACE(c.label);
    auto [value, grad] = test::evaluate(*c.loss, chunk);
    EXPECT_TRUE(std::isfinite(value.item<double>()));
    EXPECT_LT(grad.sum(1).abs().max().item<double>(), 1e-5);
    EXPECT_EQ(grad.narrow(0, 2, 2).abs().max().item<double>(), 0);
  }
}

}  // namespace
}  // namespace satin::losses
