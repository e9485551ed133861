#include "losses/cross_entropy.h"

#include "losses/loss_support.h"

namespace satin::losses {
namespace {
using test::evaluate;

TEST(CrossEntropy, TargetsOfMaskedRowsAreNotLookedAt) {
  at::Tensor student = test::random_logits(4, 9, 1);
  at::Tensor targets = at::tensor({3, -100, 8, 0}, at::kLong);
  at::Tensor weights = at::tensor({0.5, 0.0, 0.25, 0.25}, at::kDouble);
  auto [value, grad] = evaluate(CrossEntropy(), {student, {}, targets, weights});
  at::Tensor rows = at::tensor({0, 2, 3}, at::kLong);
  at::Tensor want =
      at::cross_entropy_loss(student.index_select(0, rows), targets.index_select(0, rows), {}, at::Reduction::None);
  EXPECT_NEAR(value.item<double>(), (want * weights.index_select(0, rows)).sum().item<double>(), 1e-14);
  EXPECT_TRUE(at::equal(grad[1], at::zeros({9}, at::kDouble)));
  EXPECT_TRUE(at::isfinite(grad).all().item<bool>());
}

TEST(CrossEntropy, WeightScalesTheGradientAndNotTheValue) {
  test::LogitChunk chunk{
      test::random_logits(3, 5, 2), {}, at::tensor({0, 1, 4}, at::kLong), at::full({3}, 1 / 3., at::kDouble)};
  auto once = evaluate(CrossEntropy(), chunk);
  auto quarter = evaluate(CrossEntropy(), chunk, 0.25);
  EXPECT_DOUBLE_EQ(quarter.value.item<double>(), once.value.item<double>());
  EXPECT_LT(test::largest_difference(quarter.grad, 0.25 * once.grad), 1e-15);
}

}  // namespace
}  // namespace satin::losses
