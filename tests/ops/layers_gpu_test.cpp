// The fused layers on CUDA against fp64 on the CPU, for every path of the kernels and every pair of dtypes; twice the
// same bits.
#include <ATen/Context.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "core/error.h"
#include "ops/layers_cases.h"

namespace satin::test {
namespace {

#define SATIN_NEEDS_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device and a build with CUDA"

constexpr double kEps = 1e-5;

struct Pair {
  at::ScalarType x, y;
  double tolerance;
};
constexpr Pair kPairs[] = {{at::kDouble, at::kDouble, 1e-13},
                           {at::kFloat, at::kFloat, 2e-6},
                           {at::kFloat, at::kBFloat16, 4e-3},
                           {at::kBFloat16, at::kBFloat16, 4e-3}};

void expect_near(const at::Tensor& found, const at::Tensor& expected, double tolerance, const char* what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  if (expected.numel() == 0) return;
  const at::Tensor wide = found.cpu().to(at::kDouble);
  // Of a few numbers the norm may be small by cancellation: rounding is that of their terms, which are near 1.
  const double size = expected.norm().item<double>() + (expected.numel() < 100 ? 1 : 0);
  EXPECT_LE((wide - expected).norm().item<double>() / (size + 1e-300), tolerance) << what;
}

TEST(LayersGpu, RmsNormMatchesDoubleOnTheCpu) {
  SATIN_NEEDS_GPU();
  for (const auto& [rows, columns] : norm_shapes())
    for (const Pair& pair : kPairs)
      for (const bool with_delta : {false, true}) {
        if (with_delta && pair.x == at::kBFloat16) continue;
        SCOPED_TRACE(cat("[", rows, ", ", columns, "] ", toString(pair.x), " to ", toString(pair.y), " ", with_delta));
        const NormTensors in = make_norm(rows, columns, 11);
        const at::Tensor x = in.x.to(pair.x), delta = with_delta ? in.delta.to(pair.y) : at::Tensor();
        const at::Tensor weight = in.weight.to(at::kFloat), grad = in.grad.to(pair.y), later = in.grad_later.to(pair.x);
        const auto wide = [](const at::Tensor& t) { return t.defined() ? t.to(at::kDouble) : t; };
        at::Tensor wide_x = wide(x).requires_grad_(true), wide_weight = wide(weight).requires_grad_(true);
        const at::Tensor sum = with_delta ? wide_x + wide(delta) : wide_x;
        const at::Tensor y = composed_norm(sum, wide_weight, kEps);
        const auto expected =
            torch::autograd::grad({(y * wide(grad)).sum() + (sum * wide(later)).sum()}, {wide_x, wide_weight});
        const auto cuda = [](const at::Tensor& t) { return t.defined() ? t.cuda() : t; };
        for (int repeat = 0; repeat < 2; ++repeat) {
          const auto found = ops::rms_norm(cuda(x), cuda(delta), cuda(weight), kEps, pair.y);
          expect_near(found.y, y.detach(), pair.tolerance, "y");
          expect_near(found.sum, sum.detach(), pair.x == at::kBFloat16 ? 4e-3 : pair.tolerance, "sum");
          const at::Tensor rstd = (1 / at::sqrt(sum.detach().square().mean(-1) + kEps))
                                      .to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
          const auto run = [&] {
            return ops::rms_norm_backward(cuda(grad), cuda(later), found.sum, cuda(weight), cuda(rstd), with_delta);
          };
          const auto gradients = run(), again = run();
          expect_near(gradients.x, expected[0], pair.tolerance, "grad x");
          expect_near(gradients.weight, expected[1], pair.y == at::kBFloat16 ? 1e-5 : pair.tolerance, "grad weight");
          if (with_delta) expect_near(gradients.delta, expected[0], pair.tolerance, "grad delta");
          EXPECT_TRUE(at::equal(gradients.weight, again.weight)) << "deterministic";
          EXPECT_TRUE(at::equal(gradients.x, again.x)) << "deterministic";
        }
      }
}

// The same through autograd, as a training step calls it: fp32 stream, bfloat16 branches, fp32 weight.
TEST(LayersGpu, DifferentiableAsTheStepUsesThem) {
  SATIN_NEEDS_GPU();
  const NormTensors in = make_norm(40, 512, 14);
  const auto run = [&](at::Device device, at::ScalarType stream, at::ScalarType branch) {
    const auto leaf = [&](const at::Tensor& t, at::ScalarType dtype) {
      return t.to(at::kBFloat16).to(device, dtype).requires_grad_(true);
    };
    const at::Tensor x = leaf(in.x, stream), delta = leaf(in.delta, branch), weight = leaf(in.weight, stream);
    const auto norm = ops::rms_norm(x, delta, weight, kEps, branch);
    const at::Tensor y = ops::swiglu(norm.y, norm.y * 0.5).to(stream) + norm.sum;
    return torch::autograd::grad({(y * in.grad.to(device, stream)).sum()}, {x, delta, weight});
  };
  const auto found = run(at::kCUDA, at::kFloat, at::kBFloat16), expected = run(at::kCPU, at::kDouble, at::kDouble);
  for (size_t i = 0; i < found.size(); ++i) expect_near(found[i], expected[i], 1e-2, "gradient");
  EXPECT_EQ(found[1].scalar_type(), at::kBFloat16);
}

TEST(LayersGpu, UnalignedRows) {
  SATIN_NEEDS_GPU();
  const at::Tensor values = at::randn({4 * 64 + 1}, at::kFloat), weight = at::randn({64});
  const at::Tensor x = values.cuda().narrow(0, 1, 256).view({4, 64});
  const auto found = ops::rms_norm(x, {}, weight.cuda(), kEps, at::kBFloat16);
  expect_near(found.y,
              composed_norm(values.narrow(0, 1, 256).view({4, 64}).to(at::kDouble), weight.to(at::kDouble), kEps), 4e-3,
              "y");
}

TEST(LayersGpu, SwigluMatchesDoubleOnTheCpu) {
  SATIN_NEEDS_GPU();
  for (const Pair& pair : {kPairs[0], kPairs[1], kPairs[3]})
    for (int64_t n : {0, 1, 7, 4096, 1000003}) {
      at::manual_seed(12);
      const auto random = [&](double size) { return (at::randn({n}, at::kDouble) * size).to(pair.x); };
      const at::Tensor gate = random(6), up = random(1), grad = random(1);
      at::Tensor g = gate.to(at::kDouble).requires_grad_(true), u = up.to(at::kDouble).requires_grad_(true);
      const at::Tensor y = composed_swiglu(g, u);
      expect_near(ops::swiglu(gate.cuda(), up.cuda()), y.detach(), pair.tolerance, "y");
      const auto expected = torch::autograd::grad({(y * grad.to(at::kDouble)).sum()}, {g, u});
      const auto found = ops::swiglu_backward(grad.cuda(), gate.cuda(), up.cuda());
      expect_near(found.gate, expected[0], pair.tolerance, "grad gate");
      expect_near(found.up, expected[1], pair.tolerance, "grad up");
    }
}

TEST(LayersGpu, RotationHasTheCpusBits) {
  SATIN_NEEDS_GPU();
  at::manual_seed(13);
  for (const int64_t features : {2, 6, 16, 64, 80, 128})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      const at::ScalarType arithmetic = dtype == at::kDouble ? at::kDouble : at::kFloat;
      const at::Tensor angles = at::randn({9, features / 2}, arithmetic), cos = angles.cos(), sin = angles.sin();
      const at::Tensor projected = at::randn({3, 9, 4 * features}, dtype);
      for (const at::Tensor& x :
           {projected.view({3, 9, 4, features}).transpose(1, 2), projected.view({3, 4, 9, features})})
        for (const bool inverse : {false, true}) {
          const at::Tensor found = ops::rotate(x.cuda(), cos.cuda(), sin.cuda(), inverse);
          EXPECT_TRUE(at::equal(found.cpu(), ops::rotate(x, cos, sin, inverse))) << features << " " << dtype;
          EXPECT_EQ(found.strides(), x.strides());
        }
    }
}

}  // namespace
}  // namespace satin::test
