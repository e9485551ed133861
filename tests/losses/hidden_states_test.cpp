#include "losses/hidden_states.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "loss_support.h"

namespace satin::losses {
namespace {

struct Case {
  at::Tensor student, teacher, weights;
};
Case random_case(int64_t n, int64_t h) {
  at::manual_seed(8);
  Case c{at::randn({n, h}, at::kDouble) * 3, at::randn({n, h}, at::kDouble) * 5, at::rand({n}, at::kDouble)};
  c.weights[1].fill_(0);
  return c;
}

TEST(HiddenStates, ValueIsTheDefinitionInScalars) {
  const Case c = random_case(6, 5);
  double want = 0;
  for (int64_t n = 0; n < 6; ++n) {
    double aa = 0, bb = 0, ab = 0;
    for (int64_t i = 0; i < 5; ++i) {
      const double a = c.student[n][i].item<double>(), b = c.teacher[n][i].item<double>();
      aa += a * a, bb += b * b, ab += a * b;
    }
    want += c.weights[n].item<double>() * (2 - 2 * ab / std::sqrt(aa * bb));  // |u - v|^2 of unit vectors
  }
  EXPECT_NEAR(hidden_state_loss(c.student, c.teacher, c.weights).value.item<double>(), want, 1e-12);
}

TEST(HiddenStates, GradientEqualsFiniteDifferencesAndAutograd) {
  const Case c = random_case(6, 5);
  const at::Tensor got = hidden_state_loss(c.student, c.teacher, c.weights).grad;
  at::Tensor numeric = at::zeros_like(got);
  for (int64_t n = 0; n < 6; ++n)
    for (int64_t i = 0; i < 5; ++i) {
      const auto value = [&](double step) {
        at::Tensor moved = c.student.clone();
        moved[n][i] += step;
        return hidden_state_loss(moved, c.teacher, c.weights).value.item<double>();
      };
      numeric[n][i] = (value(1e-6) - value(-1e-6)) / 2e-6;
    }
  EXPECT_LT(test::largest_difference(got, numeric), 1e-8);

  at::Tensor leaf = c.student.clone().set_requires_grad(true);
  const at::Tensor u = leaf / leaf.norm(2, {1}, true), v = c.teacher / c.teacher.norm(2, {1}, true);
  ((u - v).square().sum(1) * c.weights).sum().backward();
  EXPECT_LT(test::largest_difference(got, leaf.grad()), 1e-13);
}

TEST(HiddenStates, OnlyDirectionsCount) {
  const Case c = random_case(6, 5);
  const double value = hidden_state_loss(c.student, c.teacher, c.weights).value.item<double>();
  EXPECT_NEAR(hidden_state_loss(c.student * 7, c.teacher * 0.1, c.weights).value.item<double>(), value, 1e-12);
  EXPECT_LT(hidden_state_loss(c.teacher * 3, c.teacher, c.weights).value.item<double>(), 1e-28);
  EXPECT_NEAR(hidden_state_loss(-c.teacher, c.teacher, c.weights).value.item<double>(),
              4 * c.weights.sum().item<double>(), 1e-12);
}

TEST(HiddenStates, MaskedNaNAndZeroVectorsStayWhereTheyAre) {
  Case c = random_case(6, 5);
  c.student[1].fill_(NAN), c.teacher[1].fill_(INFINITY);
  c.student[2].fill_(0), c.teacher[3].fill_(0);
  const HiddenStateLoss loss = hidden_state_loss(c.student, c.teacher, c.weights);
  EXPECT_TRUE(loss.value.isfinite().item<bool>());
  EXPECT_TRUE(loss.grad.isfinite().all().item<bool>());
  for (const int64_t n : {1, 2, 3}) EXPECT_EQ(loss.grad[n].abs().max().item<double>() < 1e-15, true) << n;
  const HiddenStateLoss narrow = hidden_state_loss(c.student.to(at::kFloat), c.teacher, c.weights.to(at::kFloat));
  EXPECT_EQ(narrow.grad.scalar_type(), at::kFloat);
  EXPECT_LT(test::relative_error(narrow.grad, loss.grad), 1e-6);
  EXPECT_THROW(hidden_state_loss(c.student, c.teacher.narrow(1, 0, 4), c.weights), InternalError);
}

}  // namespace
}  // namespace satin::losses
