// CUDA against fp64 on the CPU.
#include "losses/cross_entropy.h"
#include "losses/distillation.h"
#include "losses/head.h"
#include "losses/loss_support.h"
#include "losses/neighbourhood.h"
#include "losses/smoothness.h"

namespace satin::losses {
namespace {

#define NEEDS_CUDA() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device"

TEST(LossesGpu, TopKTiesGoToTheLowerId) {
  NEEDS_CUDA();
  at::manual_seed(1);
  at::Tensor logits = at::randint(-40, 40, {64, 5000}).to(at::kFloat);
  logits[0].zero_();
  logits.narrow(0, 32, 32).add_(at::randn({32, 5000}));
  for (int64_t k : {1, 40, 256, 257, 512}) {
    ops::TopK cpu = ops::top_k(logits, k), cuda = ops::top_k(logits.cuda(), k);
    EXPECT_TRUE(at::equal(cpu.ids, cuda.ids.cpu())) << k;
  }
}

TEST(LossesGpu, HeadMatchesDoubleOnTheCpu) {
  NEEDS_CUDA();
  constexpr int64_t N = 300, V = 5000, H = 128;
  const CrossEntropy ce;
  const Distillation kd(1), reverse(2, 0);
  const Smoothness smooth(40, 2, V - 100);
  at::manual_seed(2);
  auto random = [&](int64_t rows, double size) { return (at::randn({rows, H}) * size).to(at::kBFloat16); };
  HeadInputs low{random(N, 1),           random(V, 0.3), random(N, 1), random(V, 0.3), at::randint(V, {N}, at::kLong),
                 at::full({N}, 1.0f / N)};
  low.weights.narrow(0, 10, 30).zero_();
  for (auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto moved = [&](at::ScalarType type, at::Device device) {
      HeadInputs in = low;
      for (at::Tensor* x : {&in.hidden, &in.head, &in.teacher_hidden, &in.teacher_head}) *x = x->to(device, type);
      in.weights = in.weights.to(device, type == at::kDouble ? at::kDouble : at::kFloat);
      in.targets = in.targets.to(device);
      return in;
    };
    const double value_tolerance = dtype == at::kDouble ? 1e-12 : 2e-5;
    const double grad_tolerance = dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 2e-5 : 5e-3;
    for (const auto& terms :
         {std::vector<Term>{{&ce, 0.3}, {&kd, 1}, {&smooth, 0.5}}, std::vector<Term>{{&reverse, 1}}}) {
      HeadInputs dirty = moved(dtype, at::kCUDA);
      dirty.hidden.narrow(0, 10, 30).fill_(NAN);
      dirty.targets.narrow(0, 10, 30).fill_(-100);
      HeadResult got = head_losses(dirty, terms, 128);
      HeadResult want = head_losses(moved(at::kDouble, at::kCPU), terms, 1000);
      for (const auto& [name, value] : want.values)
        EXPECT_NEAR(got.values.at(name).item<double>() / value.item<double>(), 1, value_tolerance)
            << name << " " << dtype;
      EXPECT_LT(test::relative_error(got.grad_hidden, want.grad_hidden), grad_tolerance) << dtype;
      EXPECT_LT(test::relative_error(got.grad_head, want.grad_head), grad_tolerance) << dtype;
      EXPECT_EQ(got.grad_head.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
    }
  }
}

TEST(LossesGpu, StoredTeacherMatchesDoubleOnTheCpu) {
  NEEDS_CUDA();
  constexpr int64_t N = 200, V = 5000, k = 40;
  at::manual_seed(3);
  const at::Tensor z = at::randn({N, V}, at::kDouble) * 3, s = z + at::randn({N, V}, at::kDouble);
  const ops::TopK best = ops::top_k(z, k);
  const at::Tensor total = z.logsumexp(1), rest = z.scatter(1, best.ids, -INFINITY).logsumexp(1) - total;
  const ops::StoredTopK stored{best.ids.to(at::kInt), best.values - best.values.narrow(1, 0, 1), rest,
                               at::log1p(-rest.exp())};
  const ops::LogitLosses losses{
      .cross_entropy = 0.3, .distillation = 1, .smoothness = 0.5, .smoothness_temperature = 2};
  const at::Tensor targets = at::randint(V, {N}, at::kLong);
  at::Tensor weights = at::full({N}, 1.0 / N, at::kDouble);
  weights.narrow(0, 10, 5).zero_();
  at::Tensor want_grad = at::empty_like(s);
  const at::Tensor want = ops::stored_losses(losses, s, stored, targets, weights, want_grad);
  for (const auto& [logits, slopes] :
       {std::pair{at::kDouble, at::kDouble}, {at::kFloat, at::kFloat}, {at::kFloat, at::kBFloat16}}) {
    const auto on_gpu = [&, dtype = logits](const at::Tensor& x) { return x.to(at::kCUDA, dtype); };
    at::Tensor grad = at::empty({N, V}, at::device(at::kCUDA).dtype(slopes));
    const at::Tensor got = ops::stored_losses(
        losses, on_gpu(s), {stored.ids.cuda(), on_gpu(stored.logits), on_gpu(rest), on_gpu(stored.log_mass)},
        targets.cuda(), on_gpu(weights), grad);
    EXPECT_LT(test::relative_error(got.sum(1), want.sum(1)), logits == at::kDouble ? 1e-12 : 2e-5);
    EXPECT_LT(test::relative_error(grad, want_grad), slopes == at::kDouble  ? 1e-12
                                                     : slopes == at::kFloat ? 2e-5
                                                                            : 5e-3);
  }
}

TEST(LossesGpu, DeterministicModeAllowsAllAndRepeats) {
  NEEDS_CUDA();
  at::globalContext().setDeterministicAlgorithms(true, false);
  const CrossEntropy ce;
  const Distillation kd(2);
  const Smoothness smooth(40, 2);
  const auto options = at::device(at::kCUDA).dtype(at::kFloat);
  HeadInputs in{at::randn({500, 64}, options),
                at::randn({3000, 64}, options),
                at::randn({500, 64}, options),
                at::randn({3000, 64}, options),
                at::zeros({500}, options.dtype(at::kLong)),
                at::ones({500}, options)};
  const std::vector<Term> terms{{&ce, 1}, {&kd, 1}, {&smooth, 1}};
  HeadResult a = head_losses(in, terms, 128), b = head_losses(in, terms, 128);
  at::globalContext().setDeterministicAlgorithms(false, false);
  EXPECT_TRUE(at::equal(a.grad_hidden, b.grad_hidden));
  EXPECT_TRUE(at::equal(a.grad_head, b.grad_head));
  for (const auto& [name, value] : a.values) EXPECT_TRUE(at::equal(value, b.values.at(name))) << name;
}

TEST(LossesGpu, SmoothnessOfTheTeacherItselfIsExactlyZero) {
  NEEDS_CUDA();
  at::Tensor z = test::random_logits(64, 3000, 3, 10).to(at::kFloat).cuda();
  auto [value, grad] = test::evaluate(Smoothness(40, 2), {z, z.clone(), {}, at::ones({64}, z.options())});
  EXPECT_EQ(value.item<double>(), 0);
  EXPECT_EQ(grad.abs().max().item<double>(), 0);
}

TEST(LossesGpu, DrawsAreThoseOfTheCpuAlsoInDeterministicMode) {
  NEEDS_CUDA();
  at::globalContext().setDeterministicAlgorithms(true, false);
  constexpr int64_t V = 2000, B = 8, T = 256;
  at::manual_seed(4);
  at::Tensor table = at::randn({V, V}) * 3;
  CleanWindows clean{at::randint(V, {B, T}, at::kLong), at::rand({B, T}) < 0.02, {9, 8, 7, 6, 5, 4, 3, 2}};
  Source source = [&](const at::Tensor& tokens) {
    return SourceStates{at::one_hot(tokens, V).to(at::kFloat), table.t().contiguous().to(tokens.device())};
  };
  for (const char* kind : {"teacher", "random"}) {
    config::Neighbourhood options;
    options.rate = 0.3;
    options.depth = 2;
    options.source = kind;
    Neighbourhood n(options, V - 10, {0, 1, 2}, 7, 500);
    at::Tensor cpu = n.perturb(clean.tokens, clean, source), cuda = n.perturb(clean.tokens.cuda(), clean, source);
    EXPECT_TRUE(cuda.is_cuda());
    EXPECT_LE((cpu != cuda.cpu()).sum().item<int64_t>(), 1) << kind;  // one-hot products are exact: rounding ties alone
  }
  at::globalContext().setDeterministicAlgorithms(false, false);
}

}  // namespace
}  // namespace satin::losses
