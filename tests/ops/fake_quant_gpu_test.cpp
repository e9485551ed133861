// CUDA against the CPU: weights, codes and weight gradients bit for bit, sums to rounding, and twice the same bits.
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"
#include "ops/fake_quant_cases.h"

namespace satin::test {
namespace {

#define SATIN_NEEDS_GPU() \
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device and a build with CUDA"

FakeQuantTensors on_gpu(const FakeQuantTensors& in) {
  const auto move = [](const at::Tensor& x) { return x.defined() ? x.to(at::kCUDA) : x; };
  return {move(in.weight), move(in.grad), move(in.scale), move(in.zero_point)};
}

TEST(FakeQuantGpu, WeightsHaveTheCpusBits) {
  SATIN_NEEDS_GPU();
  for (const FakeQuantCase& test_case : fake_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const FakeQuantTensors cpu = make_tensors(test_case, 41), gpu = on_gpu(cpu);
    for (at::ScalarType dtype : {cpu.scale.scalar_type(), at::kBFloat16})
      ASSERT_TRUE(
          at::equal(ops::fake_quant(gpu.weight, gpu.scale, gpu.optional_zero_point(), test_case.grid, dtype).cpu(),
                    ops::fake_quant(cpu.weight, cpu.scale, cpu.optional_zero_point(), test_case.grid, dtype)));
  }
}

TEST(FakeQuantGpu, CodesHaveTheCpusBits) {
  SATIN_NEEDS_GPU();
  for (const FakeQuantCase& test_case : fake_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    const FakeQuantTensors cpu = make_tensors(test_case, 42), gpu = on_gpu(cpu);
    const auto a = ops::fake_quant_codes(gpu.weight, gpu.scale, gpu.optional_zero_point(), test_case.grid);
    const auto b = ops::fake_quant_codes(cpu.weight, cpu.scale, cpu.optional_zero_point(), test_case.grid);
    ASSERT_TRUE(at::equal(a.codes.cpu(), b.codes));
    ASSERT_TRUE(at::equal(a.scale.cpu(), b.scale));
    ASSERT_TRUE(at::equal(a.zero.cpu(), b.zero));
  }
}

TEST(FakeQuantGpu, GradientsAgreeAndRepeat) {
  SATIN_NEEDS_GPU();
  for (const FakeQuantCase& test_case : fake_quant_cases()) {
    SCOPED_TRACE(test_case.name());
    FakeQuantTensors cpu = make_tensors(test_case, 43);
    if (test_case.dtype == at::kBFloat16) cpu.grad = cpu.grad.to(at::kBFloat16);
    const FakeQuantTensors gpu = on_gpu(cpu);
    const auto backward = [&](const FakeQuantTensors& in) {
      return ops::fake_quant_backward(in.grad, in.weight, in.scale, in.optional_zero_point(), test_case.grid);
    };
    const ops::FakeQuantGradients a = backward(gpu), again = backward(gpu);
    ASSERT_TRUE(at::equal(a.scale, again.scale)) << "deterministic";
    if (test_case.num_rows == 0) continue;
    FakeQuantTensors exact = cpu;
    exact.grad = cpu.grad.to(cpu.scale.scalar_type());
    const Expected expected = expected_values(test_case, exact);
    expect_weight_gradient(test_case, a.weight.cpu(), expected);
    const bool wide = test_case.dtype == at::kDouble;  // then it is the expected quotients that are rounded
    const double tolerance = wide ? 1e-14 : 2e-6;
    const at::Tensor error = (a.scale.cpu().to(at::kDouble) - expected.grad_scale).abs();
    at::Tensor bound = tolerance * expected.scale_magnitude;
    if (wide) bound = bound + std::ldexp(1, -53) * expected.quotient_magnitude;
    ASSERT_TRUE((error <= bound).all().item<bool>()) << (error / bound).max().item<double>();
    if (a.zero_point.defined()) {
      ASSERT_LE(relative_error(a.zero_point, expected.grad_zero), tolerance * 10);
    }
  }
}

TEST(FakeQuantGpu, ABatchHasTheBitsOfItsParts) {
  SATIN_NEEDS_GPU();
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [kind, bits] : std::vector<std::pair<ops::Grid, int>>{{ops::Grid::kSymmetric, 4},
                                                                           {ops::Grid::kAsymmetric, 2},
                                                                           {ops::Grid::kTernary, 2},
                                                                           {ops::Grid::kBinary, 1}}) {
      BatchCase test_case = make_batch(kind, bits, dtype, 600, 51);  // several launches
      for (auto* list :
           {&test_case.batch.weights, &test_case.batch.scales, &test_case.batch.zero_points, &test_case.grads})
        for (at::Tensor& tensor : *list) tensor = tensor.to(at::kCUDA);
      const auto weights = ops::fake_quant_many(test_case.batch, at::kBFloat16);
      const auto gradients = ops::fake_quant_backward_many(test_case.grads, test_case.batch);
      for (size_t i = 0; i < weights.size(); ++i) expect_part(test_case, i, weights, gradients);
    }
}

TEST(FakeQuantGpu, DivisionIsExactNearEveryTie) {
  SATIN_NEEDS_GPU();
  at::manual_seed(52);
  // Weights within a few units in the last place of half a step: where a quotient that is not rounded correctly flips
  // a code. Scales of every size that a bfloat16 can hold in practice, and the extremes that divide plainly.
  for (double size : {1e-5, 3e-3, 0.7, 50.0, 1e17, 1e20}) {
    const at::Tensor scale = (at::rand({4096, 1}) + 1) * size;
    const ops::FakeQuantGrid grid{ops::Grid::kSymmetric, 8, 64};
    const at::Tensor stored = ops::fake_quant_codes(at::zeros({4096, 64}), scale, {}, grid).scale.to(at::kDouble);
    const at::Tensor steps = at::randint(-100, 100, {4096, 64}).to(at::kDouble) + 0.5;
    const at::Tensor nudge = 1 + at::randint(-3, 4, {4096, 64}).to(at::kDouble) * 6e-8;
    const at::Tensor w = (steps * stored * nudge).to(at::kFloat);
    ASSERT_TRUE(at::equal(ops::fake_quant_codes(w.to(at::kCUDA), scale.to(at::kCUDA), {}, grid).codes.cpu(),
                          ops::fake_quant_codes(w, scale, {}, grid).codes))
        << size;
  }
}

TEST(FakeQuantGpu, UnalignedWeights) {
  SATIN_NEEDS_GPU();
  const ops::FakeQuantGrid grid{ops::Grid::kSeq, 2, 64};
  const at::Tensor storage = at::randn({2 * 64 + 1}), scale = at::rand({2, 1}) + 0.5;
  const at::Tensor unaligned = storage.to(at::kCUDA).narrow(0, 1, 128).view({2, 64});
  EXPECT_TRUE(at::equal(ops::fake_quant(unaligned, scale.to(at::kCUDA), {}, grid, at::kFloat).cpu(),
                        ops::fake_quant(storage.narrow(0, 1, 128).view({2, 64}), scale, {}, grid, at::kFloat)));
}

TEST(FakeQuantGpu, NaNPropagates) {
  SATIN_NEEDS_GPU();
  at::Tensor w = at::randn({4, 64});
  w[1][3] = std::nan("");
  w[2][0] = std::numeric_limits<float>::infinity();
  const at::Tensor scale = at::ones({4, 1});
  for (ops::Grid kind : {ops::Grid::kSymmetric, ops::Grid::kSeq, ops::Grid::kTernary}) {
    const at::Tensor out = ops::fake_quant(w.to(at::kCUDA), scale.to(at::kCUDA), {}, {kind, 2, 64}, at::kFloat).cpu();
    EXPECT_TRUE(at::equal(out.isnan(), w.isnan()));
  }
}

TEST(DataScaleGpu, HasTheCpusBits) {
  SATIN_NEEDS_GPU();
  for (const auto& [kind, bits] : data_scale_grids())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      SCOPED_TRACE(testing::Message() << static_cast<int>(kind) << " " << bits << " " << toString(dtype));
      ops::FakeQuantBatch batch = make_data_scale_batch(kind, bits, dtype);
      const ops::DataScales cpu = ops::data_scale_many(batch);
      for (at::Tensor& w : batch.weights) w = w.to(at::kCUDA);
      const ops::DataScales gpu = ops::data_scale_many(batch);
      for (size_t i = 0; i < cpu.scales.size(); ++i) {
        // A mean in fp64 of fp64 weights is a sum in another order; every other number is the same.
        const bool mean = kind == ops::Grid::kBinary || kind == ops::Grid::kBitNet;
        const double tolerance = mean && dtype == at::kDouble ? 1e-14 : 0;
        EXPECT_LE(relative_error(gpu.scales[i], cpu.scales[i]), tolerance) << i;
        if (!cpu.zero_points.empty()) {
          EXPECT_TRUE(at::equal(gpu.zero_points[i].cpu(), cpu.zero_points[i])) << i;
        }
      }
    }
}

/// Weighted squared error of each group, in fp64.
at::Tensor clip_errors(const at::Tensor& w, const at::Tensor& importance, const ops::ClipSearchResult& found,
                       ops::FakeQuantGrid grid) {
  grid.dequant_rounding = ops::Rounding::kNone;
  const at::Tensor exact = w.to(at::kDouble);
  const auto zero = found.zero_point.defined() ? std::optional(found.zero_point.to(at::kDouble)) : std::nullopt;
  const at::Tensor value = ops::fake_quant(exact, found.scale.to(at::kDouble), zero, grid, at::kDouble);
  const at::Tensor errors = (value - exact).square() * (importance.defined() ? importance : at::ones(1));
  return errors.view({w.size(0), -1, grid.group_size}).sum(-1);
}

TEST(ClipSearchGpu, IsTheCpusUpToNearTies) {
  SATIN_NEEDS_GPU();
  at::manual_seed(44);
  for (const auto& [kind, bits] : data_scale_grids())
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble})
      for (const int64_t group : {1, 20, 64, 512, 1000, 11008})
        for (const bool weighted : {false, true}) {
          SCOPED_TRACE(testing::Message() << "grid " << static_cast<int>(kind) << ", " << bits << " bits, "
                                          << toString(dtype) << ", group " << group << ", weighted " << weighted);
          const int64_t rows = std::max<int64_t>(4, 8192 / group);
          const ops::FakeQuantGrid grid{kind, bits, group};
          const at::Tensor w = (at::randn({rows, group * 3}) * 0.02).to(dtype);
          const at::Tensor importance = weighted ? at::rand({group * 3}).pow(4) : at::Tensor();
          const auto search = [&](c10::Device device) {
            return ops::clip_search(w.to(device), grid, weighted ? std::optional(importance.to(device)) : std::nullopt);
          };
          const ops::ClipSearchResult cpu = search(at::kCPU), again = search(at::kCUDA);
          ops::ClipSearchResult gpu = search(at::kCUDA);
          ASSERT_TRUE(at::equal(gpu.scale, again.scale)) << "deterministic";
          gpu.scale = gpu.scale.cpu();
          if (gpu.zero_point.defined()) gpu.zero_point = gpu.zero_point.cpu();
          EXPECT_GT((cpu.scale == gpu.scale).to(at::kFloat).mean().item<float>(), group < 1000 ? 0.98 : 0.8);
          const at::Tensor expected = clip_errors(w, importance, cpu, grid),
                           found = clip_errors(w, importance, gpu, grid);
          EXPECT_TRUE(((found - expected).abs() <= expected * 1e-5 + 1e-12).all().item<bool>());
        }
}

TEST(ClipSearchGpu, NaNAndImportance) {
  SATIN_NEEDS_GPU();
  at::Tensor w = at::randn({3, 128}, at::kCUDA);
  w[1][5] = std::nan("");
  w[2][70] = std::numeric_limits<float>::infinity();
  const ops::FakeQuantGrid grid{ops::Grid::kAsymmetric, 2, 64};
  const at::Tensor plain = ops::clip_search(w, grid).scale, ones = at::ones({128}, w.options());
  EXPECT_TRUE(at::equal(plain.isnan().cpu().to(at::kInt), at::tensor({0, 0, 1, 0, 0, 1}).view({3, 2})));
  for (const at::Tensor& none : {ones, at::zeros_like(ones)})
    EXPECT_TRUE(at::equal(ops::clip_search(w, grid, none).scale.nan_to_num(), plain.nan_to_num()));
  EXPECT_THROW(ops::clip_search(w, grid, ones.cpu()), InternalError);
  EXPECT_THROW(ops::clip_search(w, grid, -ones), InternalError);
}

}  // namespace
}  // namespace satin::test
