#include "nn/rope.h"

#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "ops/layers.h"
#include "support/tensor_archive.h"

namespace satin::nn {
namespace {

struct Case {
  const char* name;
  int64_t head_dim;
  Rope rope;
};
// The same as in rope_tables.py.
const Case kCases[] = {
    {"default", 64, {}},
    {"large_theta", 128, {.theta = 1e6}},
    {"linear", 32, {.type = "linear", .factor = 4}},
    {"llama3", 128, {.theta = 5e5, .type = "llama3", .factor = 32}},
    {"llama3_small", 16, {.type = "llama3", .factor = 8, .original_max_position_embeddings = 64}},
};

TEST(Rope, EqualsTransformers) {
  SATIN_NEEDS_PYTHON("transformers");
  const test::TempDir dir;
  const auto made = test::run_python("nn/rope_tables.py " + (dir / "tables.pt").string());
  ASSERT_EQ(made.exit_code, 0) << made.output;
  auto expected = test::load_tensor_archive(dir / "tables.pt");
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const auto of = [&](const char* key) { return expected.at(std::string(c.name) + "." + key); };
    EXPECT_TRUE(at::equal(inverse_frequencies(c.rope, c.head_dim), of("inv_freq")));
    const int64_t length = of("cos").size(0);
    RopeTables tables(c.rope, c.head_dim, at::kCPU, at::kFloat);
    tables.slice(0, 10);  // then it has to grow
    const auto [cos, sin] = tables.slice(0, length);
    EXPECT_LT(test::max_difference(cos, of("cos")), 1e-6);
    EXPECT_LT(test::max_difference(sin, of("sin")), 1e-6);
    const auto [cos_end, sin_end] = tables.slice(length - 5, 5);
    EXPECT_LT(test::max_difference(ops::rotate(of("x"), cos_end, sin_end), of("rotated")), 2e-6);
  }
}

TEST(Rope, RotatesAndItsGradientRotatesBack) {
  RopeTables tables({}, 4, at::kCPU, at::kDouble);
  const auto [cos, sin] = tables.slice(7, 3);
  const at::Tensor x = at::randn({1, 2, 3, 4}, at::kDouble).requires_grad_(true);
  const at::Tensor y = ops::rotate(x, cos, sin);
  for (int64_t t = 0; t < 3; ++t)
    for (int64_t i = 0; i < 2; ++i) {
      const double angle = static_cast<double>(7 + t) * std::pow(10000.0, -i / 2.0);
      const double a = x[0][1][t][i].item<double>(), b = x[0][1][t][i + 2].item<double>();
      EXPECT_NEAR(y[0][1][t][i].item<double>(), a * std::cos(angle) - b * std::sin(angle), 1e-6);
      EXPECT_NEAR(y[0][1][t][i + 2].item<double>(), b * std::cos(angle) + a * std::sin(angle), 1e-6);
    }
  // An orthogonal map: the gradient of <y, c> is the inverse rotation of c, and rotating that gives c again.
  const at::Tensor c = at::randn_like(y);
  const at::Tensor gradient = torch::autograd::grad({(y * c).sum()}, {x})[0];
  EXPECT_LT(test::max_difference(ops::rotate(gradient, cos, sin), c), 1e-6);
}

TEST(Rope, KeepsTheInputDtype) {
  RopeTables tables({}, 8, at::kCPU, at::kFloat);
  const auto [cos, sin] = tables.slice(0, 2);
  const at::Tensor x = at::randn({1, 1, 2, 8});
  const at::Tensor narrow = ops::rotate(x.to(at::kBFloat16), cos, sin);
  EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(narrow, ops::rotate(x.to(at::kBFloat16).to(at::kFloat), cos, sin).to(at::kBFloat16)));
}

TEST(Rope, RefusesUnknownTypes) { EXPECT_THROW(inverse_frequencies({.type = "yarn"}, 8), InternalError); }

}  // namespace
}  // namespace satin::nn
