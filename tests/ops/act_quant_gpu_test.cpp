// Activations on CUDA against the CPU: values, codes, scales and gradients of activations bit for bit, the scale's
// gradient to rounding, and twice the same bits.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include "ops/act_quant_cases.h"

namespace satin::test {
namespace {
using ops::ActivationFormat;

#define SATIN_NEEDS_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device and a build with CUDA"

TEST(ActQuantGpu, HasTheCpusBits) {
  SATIN_NEEDS_GPU();
  for (const ActQuantCase& test_case : act_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const ActQuantTensors in = make_activations(test_case, 71);
    const at::Tensor x = in.x.to(at::kCUDA), scale = in.scale.to(at::kCUDA);
    ASSERT_TRUE(same(ops::act_quant(x, test_case.format).cpu(), ops::act_quant(in.x, test_case.format)));
    const ops::ActCodes gpu = ops::act_quant_codes(x, test_case.format);
    const ops::ActCodes cpu = ops::act_quant_codes(in.x, test_case.format);
    ASSERT_TRUE(at::equal(gpu.codes.view(at::kByte).cpu(), cpu.codes.view(at::kByte)));
    ASSERT_TRUE(same(gpu.scale.cpu(), cpu.scale));
    ASSERT_TRUE(same(ops::act_quant_static(x, scale, test_case.format).cpu(),
                     ops::act_quant_static(in.x, in.scale, test_case.format)));
  }
}

TEST(ActQuantGpu, GradientsAgreeAndRepeat) {
  SATIN_NEEDS_GPU();
  for (const ActQuantCase& test_case : act_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const ActQuantTensors in = make_activations(test_case, 72);
    const at::Tensor x = in.x.to(at::kCUDA), scale = in.scale.to(at::kCUDA), grad = in.grad.to(at::kCUDA);
    const auto found = ops::act_quant_static_backward(grad, x, scale, test_case.format);
    const auto again = ops::act_quant_static_backward(grad, x, scale, test_case.format);
    ASSERT_TRUE(same(found.scale, again.scale)) << "deterministic";
    const auto cpu = ops::act_quant_static_backward(in.grad, in.x, in.scale, test_case.format);
    ASSERT_TRUE(at::equal(found.x.cpu(), cpu.x));
    if (test_case.fill == RowFill::kDamaged || in.x.numel() == 0) {
      ASSERT_TRUE(same(found.scale.cpu(), cpu.scale));
      continue;
    }
    const ExpectedActivationGradients expected = expected_gradients(test_case.format, in);
    ASSERT_NEAR(found.scale.item<double>(), expected.scale.item<double>(),
                (test_case.dtype == at::kDouble ? 1e-13 : 1e-5) * expected.scale_magnitude.item<double>());
  }
}

TEST(ActQuantGpu, LargeTensorsAndUnalignedRows) {
  SATIN_NEEDS_GPU();
  const at::Tensor x = at::randn({3001 * 2048 + 1}).to(at::kBFloat16), grad = at::randn({3001, 2048}).to(at::kBFloat16);
  const at::Tensor scale = at::full({1}, 0.02f);
  for (ActivationFormat format : {ActivationFormat::kInt8, ActivationFormat::kFloat8})
    for (int64_t offset : {0, 1}) {
      const at::Tensor cpu = x.narrow(0, offset, 3001 * 2048).view({3001, 2048});
      const at::Tensor gpu = x.to(at::kCUDA).narrow(0, offset, 3001 * 2048).view({3001, 2048});
      EXPECT_TRUE(at::equal(ops::act_quant(gpu, format).cpu(), ops::act_quant(cpu, format)));
      const auto found = ops::act_quant_static_backward(grad.to(at::kCUDA), gpu, scale.to(at::kCUDA), format);
      const auto expected = ops::act_quant_static_backward(grad, cpu, scale, format);
      EXPECT_TRUE(at::equal(found.x.cpu(), expected.x));
      EXPECT_NEAR(found.scale.item<float>(), expected.scale.item<float>(),
                  1e-4f * std::abs(expected.scale.item<float>()) + 1e-4f);
    }
}

// Values within a few units in the last place of a tie, where a quotient that is not the correctly rounded one shows.
TEST(ActQuantGpu, DivisionIsExactNearEveryTie) {
  SATIN_NEEDS_GPU();
  at::manual_seed(73);
  for (double size : {3e-5, 0.7, 50.0, 1e17, 1e20}) {
    const at::Tensor scale = ((at::rand({4096, 1}) + 1) * size / 127).to(at::kFloat);
    const at::Tensor steps = at::randint(-127, 127, {4096, 64}).to(at::kDouble) + 0.5;
    const at::Tensor nudge = 1 + at::randint(-3, 4, {4096, 64}).to(at::kDouble) * 6e-8;
    at::Tensor x = (steps * scale.to(at::kDouble) * nudge).to(at::kFloat);
    x.select(1, 0).copy_(scale.squeeze(1) * 127);
    for (ActivationFormat format : {ActivationFormat::kInt8, ActivationFormat::kInt4, ActivationFormat::kFloat8})
      ASSERT_TRUE(at::equal(ops::act_quant_codes(x.to(at::kCUDA), format).codes.view(at::kByte).cpu(),
                            ops::act_quant_codes(x, format).codes.view(at::kByte)))
          << size;
  }
}

}  // namespace
}  // namespace satin::test
