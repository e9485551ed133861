#include "nn/parameters.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "nn/linear_factory.h"

namespace satin::nn {
namespace {

TEST(ParameterStore, MakesSharedHandlesInOrder) {
  ParameterStore store({.master_dtype = at::kDouble, .trainable = true});
  const at::Tensor a = store.add("a", {2, 3}, Role::kWeight);
  store.add("b", {4}, Role::kScale, at::kBFloat16);
  a.detach().fill_(2);
  EXPECT_EQ(store.at("a").sum().item<double>(), 12);
  EXPECT_TRUE(a.requires_grad());
  EXPECT_EQ(a.scalar_type(), at::kDouble);
  EXPECT_EQ(store.at("b").scalar_type(), at::kBFloat16);
  ASSERT_EQ(store.all().size(), 2u);
  EXPECT_EQ(store.all()[1].name, "b");
  EXPECT_EQ(store.all()[1].role, Role::kScale);
  EXPECT_EQ(store.find("c"), nullptr);
  EXPECT_THROW(store.at("c"), InternalError);
  EXPECT_THROW(store.add("a", {1}, Role::kBias), InternalError);
}

TEST(ParameterStore, IsFrozenUnlessTrainable) {
  ParameterStore store(BuildOptions{});
  EXPECT_FALSE(store.add("a", {1}, Role::kNorm).requires_grad());
}

TEST(ComputeScope, SwitchesModulesThatAreBuiltAndBackAgain) {
  ParameterStore store({.compute_dtype = at::kBFloat16});
  const auto linear = dense_linear_factory()({"m", 3, 2, true}, store);
  const at::Tensor weight = store.at("m.weight").normal_(), bias = store.at("m.bias").normal_(), x = at::randn({4, 3});
  {
    const ComputeScope scope(store, at::kFloat);
    EXPECT_TRUE(at::equal(linear->forward(x), at::linear(x, weight, bias)));
    EXPECT_EQ(store.options().compute_dtype, at::kFloat);
  }
  EXPECT_EQ(linear->weight().scalar_type(), at::kBFloat16);
  EXPECT_THROW(ComputeScope(store, at::kDouble), InternalError);
}

}  // namespace
}  // namespace satin::nn
