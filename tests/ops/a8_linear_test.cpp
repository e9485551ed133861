// Products of int8 codes with packed weights on the CPU, against what fake quantization multiplies in fp64.
#include <gtest/gtest.h>

#include "core/error.h"
#include "ops/a8_linear_cases.h"
#include "ops/act_quant.h"

namespace satin::ops {
namespace {

TEST(A8Linear, IsTheProductOfFakeQuantizedNumbers) {
  for (A8Case c : a8_cases()) {
    c.num_tokens = std::min<int64_t>(c.num_tokens, 9);
    SCOPED_TRACE(testing::Message() << c.bits << " bits [" << c.rows << ", " << c.columns << "] " << c.groups);
    const PackedWeight packed = random_weight(c);
    const at::Tensor weight = dequantize_rows(packed, 0, c.rows, at::kDouble), bias = at::randn({c.rows}, at::kDouble);
    const at::Tensor x = at::randn({c.num_tokens, c.columns}, at::kDouble);
    const at::Tensor expected = at::linear(act_quant(x, ActivationFormat::kInt8), weight, bias);
    EXPECT_TRUE(at::allclose(a8_linear(x, packed, weight, bias), expected, 1e-12, 1e-12));
    const at::Tensor narrow =
        a8_linear(x.to(at::kFloat), packed, weight.to(at::kFloat), bias.to(at::kFloat)).to(at::kDouble);
    EXPECT_LT(((narrow - expected).norm() / expected.norm()).item<double>(), 1e-5);
  }
}

TEST(A8Linear, HasTheGradientsOfFakeQuantization) {
  const A8Case c = a8_cases()[2];
  const PackedWeight packed = random_weight(c);
  const at::Tensor x = at::randn({2, 3, c.columns}, at::kDouble), bias = at::randn({c.rows}, at::kDouble);
  const at::Tensor values = dequantize_rows(packed, 0, c.rows, at::kDouble),
                   up = at::randn({2, 3, c.rows}, at::kDouble);
  std::vector<at::Tensor> ours, theirs;
  for (const bool packs : {true, false}) {
    const std::vector<at::Tensor> in{x.clone().requires_grad_(), values.clone().requires_grad_(),
                                     bias.clone().requires_grad_()};
    const at::Tensor y = packs ? a8_linear(in[0], packed, in[1], in[2])
                               : at::linear(act_quant(in[0], ActivationFormat::kInt8), in[1], in[2]);
    y.backward(up);
    for (const at::Tensor& t : in) (packs ? ours : theirs).push_back(t.grad());
  }
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(at::allclose(ours[i], theirs[i], 1e-11, 1e-11)) << i;
}

TEST(A8Linear, NeedsNoBias) {
  const A8Case c = a8_cases()[0];
  const PackedWeight packed = random_weight(c);
  const at::Tensor weight = dequantize_rows(packed, 0, c.rows, at::kDouble).requires_grad_();
  const at::Tensor x = at::randn({4, c.columns}, at::kDouble);
  const at::Tensor y = a8_linear(x, packed, weight);
  y.sum().backward();
  EXPECT_TRUE(weight.grad().defined());
  EXPECT_TRUE(at::allclose(y, at::linear(act_quant(x, ActivationFormat::kInt8), weight), 1e-12, 1e-12));
}

TEST(A8Linear, SaysWhatHasNoKernel) {
  const kernels::PackedShape good{64, 256, 2, 128};
  EXPECT_EQ(reason_against_a8(good, at::kBFloat16, 90), "");
  EXPECT_NE(reason_against_a8(good, at::kBFloat16, 80), "");
  EXPECT_NE(reason_against_a8(good, at::kFloat, 90), "");
  EXPECT_NE(reason_against_a8({64, 256, 8, 128}, at::kBFloat16, 90), "");
  EXPECT_NE(reason_against_a8({64, 256, 2, 32}, at::kBFloat16, 90), "");
  EXPECT_NE(reason_against_a8({64, 252, 2, 256}, at::kBFloat16, 90), "");
}

}  // namespace
}  // namespace satin::ops
