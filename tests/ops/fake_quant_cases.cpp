#include "ops/fake_quant_cases.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace satin::test {
using ops::FakeQuantGrid;
using ops::Grid;
using ops::Rounding;

std::string FakeQuantCase::name() const {
  static const char* grids[] = {"symmetric", "asymmetric", "seq", "ternary", "binary", "bitnet", "onebit"};
  static const char* roundings[] = {"exact", "bf16", "fp16"};
  static const char* fills[] = {"gaussian", "zeros", "denormal", "huge", "ties", "outliers"};
  return cat(grids[static_cast<int>(grid.kind)], " ", grid.bits, " bits, group ", grid.group_size, ", scales ",
             roundings[static_cast<int>(grid.scale_rounding)], ", weights ",
             roundings[static_cast<int>(grid.dequant_rounding)], ", [", num_rows, ", ", num_columns, "] ",
             toString(dtype), ", ", fills[static_cast<int>(fill)]);
}

const std::vector<FakeQuantCase>& fake_quant_cases() {
  static const std::vector<FakeQuantCase> cases = [] {
    std::vector<std::pair<Grid, int>> methods = {
        {Grid::kSeq, 2}, {Grid::kTernary, 2}, {Grid::kBinary, 1}, {Grid::kBitNet, 2}, {Grid::kOneBit, 1}};
    for (int bits : {2, 3, 4, 5, 6, 8})
      for (Grid kind : {Grid::kSymmetric, Grid::kAsymmetric}) methods.emplace_back(kind, bits);
    constexpr auto kNone = Rounding::kNone, kBFloat16 = Rounding::kBFloat16, kFloat16 = Rounding::kFloat16;
    std::vector<FakeQuantCase> all;
    for (const auto& [kind, bits] : methods) {
      for (int64_t group : {32, 64, 128, 384})  // 384: one scale a row
        for (at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble})
          all.push_back({{kind, bits, group, kBFloat16, kBFloat16}, 5, 384, dtype, Fill::kGaussian});
      // Other group sizes: below a vector, odd, a warp's loop, a block's loop.
      for (int64_t group : {1, 3, 8, 20, 256, 1000, 2048})
        all.push_back({{kind, bits, group, kBFloat16, kBFloat16}, 3, group * 3, at::kFloat, Fill::kGaussian});
      for (Rounding scale : {kNone, kFloat16})
        for (Rounding dequant : {kNone, kBFloat16, kFloat16})
          all.push_back({{kind, bits, 64, scale, dequant}, 4, 256, at::kFloat, Fill::kGaussian});
      all.push_back({{kind, bits, 64, kNone, kNone}, 4, 256, at::kDouble, Fill::kGaussian});
      for (Fill fill : {Fill::kZeros, Fill::kDenormal, Fill::kHuge, Fill::kTies, Fill::kOutliers})
        for (Rounding storage : {kBFloat16, kFloat16, kNone})
          all.push_back({{kind, bits, 64, storage, storage}, 4, 256, at::kFloat, fill});
      all.push_back({{kind, bits, 64, kBFloat16, kBFloat16}, 1, 64, at::kFloat, Fill::kTies});
      all.push_back({{kind, bits, 64, kBFloat16, kBFloat16}, 0, 64, at::kFloat, Fill::kGaussian});
    }
    return all;
  }();
  return cases;
}

FakeQuantTensors make_tensors(const FakeQuantCase& test_case, uint64_t seed) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const FakeQuantGrid& grid = test_case.grid;
  const int64_t n = test_case.num_rows, k = test_case.num_columns, g = k / grid.group_size;
  const auto real = at::TensorOptions().dtype(at::kDouble);
  at::Tensor w = at::randn({n, k}, generator, real) * 0.02;
  // From well inside the range to heavy clipping.
  const double levels = grid.kind == Grid::kSymmetric || grid.kind == Grid::kAsymmetric ? (1 << grid.bits) / 2.0 : 1;
  at::Tensor scale = (at::rand({n, g}, generator, real) + 0.1) * 0.05 / levels;
  at::Tensor zero = at::rand({n, g}, generator, real) * ((1 << grid.bits) + 2) - 1.5;
  switch (test_case.fill) {
    case Fill::kGaussian:
      break;
    case Fill::kZeros:
      w.zero_();
      break;
    case Fill::kDenormal:
      w *= 1e-38;
      scale *= 1e-6;
      break;
    case Fill::kHuge:
      w *= 1e31;
      scale *= 1e31;
      break;
    case Fill::kTies: {
      // Multiples of a quarter (and a third) of a power-of-two scale; zero points on halves.
      w = at::randint(-48, 48, {n, k}, generator, real) * 0.25;
      if (grid.kind == Grid::kTernary) w = w * 2 / 3;
      scale = at::full({n, g}, grid.kind == Grid::kTernary ? 1.5 : 1.0, real);
      zero = at::floor(zero) + 0.5;
      break;
    }
    case Fill::kOutliers: {
      w.select(1, 0) *= 1e4;
      if (n > 2) {
        scale[0].fill_(-1);  // below every floor
        scale[1].fill_(3e-7);
        scale[2].fill_(5e-5);  // between the floors
      }
      break;
    }
  }
  FakeQuantTensors out;
  const at::ScalarType state = test_case.dtype == at::kDouble ? at::kDouble : at::kFloat;
  out.weight = w.to(test_case.dtype);
  out.grad = at::randn({n, k}, generator, real).to(state);
  out.scale = scale.to(state);
  if (grid.kind == Grid::kAsymmetric) out.zero_point = zero.to(state);
  return out;
}

namespace {

at::Tensor round_storage(const at::Tensor& x, Rounding rounding) {
  if (rounding == Rounding::kNone) return x;
  // fp32 first, as for every fp32 run; torch's own conversions.
  return x.to(at::kFloat).to(rounding == Rounding::kBFloat16 ? at::kBFloat16 : at::kHalf).to(x.scalar_type());
}

}  // namespace

Expected expected_values(const FakeQuantCase& test_case, const FakeQuantTensors& tensors) {
  const FakeQuantGrid& grid = test_case.grid;
  const at::ScalarType arithmetic = tensors.scale.scalar_type();
  // One IEEE operation in the arithmetic dtype: computed in fp64 and rounded once (innocuous for fp32's four
  // operations).
  const auto rounded = [&](const at::Tensor& x) { return x.to(arithmetic).to(at::kDouble); };
  const auto constant = [&](double x) {
    return arithmetic == at::kFloat ? static_cast<double>(static_cast<float>(x)) : x;
  };
  const int64_t n = test_case.num_rows;
  const at::Tensor w =
      tensors.weight.to(at::kDouble).view({n, test_case.num_columns / grid.group_size, grid.group_size});
  const at::Tensor d = tensors.grad.to(at::kDouble).view(w.sizes());
  const double floor = grid.scale_rounding == Rounding::kFloat16 ? std::ldexp(1, -14) : constant(1e-5);
  const double unit = grid.kind == Grid::kSeq ? 0.25 : grid.kind == Grid::kTernary ? constant(2.0 / 3) : 1;
  const double top = (1 << grid.bits) - 1, half = 1 << (grid.bits - 1);

  Expected out;
  const at::Tensor raw = rounded(tensors.scale.to(at::kDouble).clamp_min(floor) * unit);
  const double largest = grid.scale_rounding == Rounding::kFloat16 ? 65504 : 3.3895313892515355e38;
  out.stored =
      round_storage(grid.scale_rounding == Rounding::kNone ? raw : raw.clamp_max(largest), grid.scale_rounding);
  const at::Tensor stored = out.stored.unsqueeze(-1);
  const double per_stored = grid.kind == Grid::kSeq ? 4 : grid.kind == Grid::kTernary ? 1.5 : 1;
  const at::Tensor a = rounded(stored * per_stored), u = rounded(w / a);

  at::Tensor level, q, inside;  // weight = stored * level = a * q
  switch (grid.kind) {
    case Grid::kSymmetric:
      level = q = at::clamp(at::round(u), -half, half - 1);
      inside = (u >= -half) & (u <= half - 1);
      out.codes = level + half;
      out.zero = at::full_like(out.stored, half);
      break;
    case Grid::kAsymmetric: {
      out.zero = at::clamp(at::round(tensors.zero_point.to(at::kDouble)), 0, top);
      const at::Tensor zero = out.zero.unsqueeze(-1), r = at::round(u) + zero;
      inside = (r >= 0) & (r <= top);
      out.codes = at::clamp(r, 0, top);
      level = q = out.codes - zero;
      break;
    }
    case Grid::kSeq: {
      const at::Tensor clipped = at::clamp(u, -constant(0.99), constant(0.99));
      q = (at::round(rounded(2 * clipped - 0.5)) + 0.5) / 2;
      level = q * 4;
      out.codes = (level + 3) / 2;
      out.zero = at::full_like(out.stored, 3);
      inside = u.abs() < constant(0.99);
      break;
    }
    case Grid::kTernary: {
      const at::Tensor clipped = at::clamp(u, -constant(0.99), constant(0.99));
      level = at::round(rounded(1.5 * clipped));
      q = level / 1.5;
      out.codes = level + 1;
      out.zero = at::full_like(out.stored, 1);
      inside = u.abs() < constant(0.99);
      break;
    }
    case Grid::kBinary:
    case Grid::kOneBit:
      level = q = at::where(u < 0, -1.0, 1.0);
      out.codes = (level + 1) / 2;
      out.zero = at::ones_like(out.stored);
      inside = grid.kind == Grid::kBinary ? u.abs() <= 1 : at::ones_like(u, at::kBool);
      break;
    case Grid::kBitNet:
      level = q = at::round(at::clamp(u, -1, 1));
      out.codes = level + 1;
      out.zero = at::ones_like(out.stored);
      inside = at::ones_like(u, at::kBool);
      break;
  }
  out.weight = round_storage(rounded(stored * level), grid.dequant_rounding).view({n, test_case.num_columns});
  out.codes = out.codes.view(out.weight.sizes());
  const bool integer = grid.kind == Grid::kSymmetric || grid.kind == Grid::kAsymmetric;
  const double highest = integer ? half - 1 : 1;  // Qp, 1 at 2 bits
  const double multiplier = 1 / std::sqrt(static_cast<double>(grid.group_size) * highest);
  const at::Tensor factor = grid.kind == Grid::kOneBit ? stored * (1.001 - at::tanh(w).square()) : at::ones_like(w);
  out.sign_gradient = (d * stored).abs().view(out.weight.sizes());
  out.grad_weight = at::where(inside, d * factor, 0.0).view(out.weight.sizes());
  // The codes follow the rounded quotient; the derivative is that of the exact one.
  const at::Tensor subtracts = inside & !kernels::has_signs(grid.kind);
  const at::Tensor terms = d * at::where(subtracts, q - w / a, q);
  out.grad_scale = terms.sum(-1) * multiplier;
  out.scale_magnitude = terms.abs().sum(-1) * multiplier;
  out.quotient_magnitude = (d * at::where(subtracts, u, at::zeros_like(u))).abs().sum(-1) * multiplier;
  if (grid.kind == Grid::kAsymmetric)
    out.grad_zero = (d * at::where(inside, at::zeros_like(a), -a)).sum(-1) * multiplier;
  return out;
}

void expect_weight_gradient(const FakeQuantCase& test_case, const at::Tensor& found, const Expected& expected) {
  if (test_case.grid.kind != Grid::kOneBit) {
    EXPECT_TRUE(at::equal(found, expected.grad_weight.to(found.scalar_type())));
    return;
  }
  const double rounding = found.scalar_type() == at::kDouble ? 1e-15 : found.scalar_type() == at::kFloat ? 5e-7 : 4e-3;
  const at::Tensor error = (found.to(at::kDouble) - expected.grad_weight).abs();
  const double factor_rounding = found.scalar_type() == at::kDouble ? 1e-15 : 3e-7;  // 1.001 - 1 cancels
  const at::Tensor bound = rounding * expected.grad_weight.abs() + factor_rounding * expected.sign_gradient;
  EXPECT_TRUE((error <= bound).all().item<bool>());
}

BatchCase make_batch(Grid kind, int bits, at::ScalarType dtype, int num_matrices, uint64_t seed) {
  const int64_t groups[] = {64, 8, 1280, 20, 128}, rows[] = {3, 17, 1, 0, 40};
  BatchCase out;
  for (int i = 0; i < num_matrices; ++i) {
    const int64_t group = groups[i % 5];
    const FakeQuantTensors one =
        make_tensors({{kind, bits, group}, rows[(i / 2) % 5], group * (1 + i % 3), dtype, Fill::kGaussian},
                     seed + static_cast<uint64_t>(i));
    out.batch.grid = {kind, bits, group};
    out.batch.weights.push_back(one.weight);
    out.batch.scales.push_back(one.scale);
    if (one.zero_point.defined()) out.batch.zero_points.push_back(one.zero_point);
    out.batch.group_sizes.push_back(group);
    out.grads.push_back(one.grad);
  }
  return out;
}

void expect_part(const BatchCase& test_case, size_t i, const std::vector<at::Tensor>& weights,
                 const ops::FakeQuantGradientsBatch& gradients) {
  const ops::FakeQuantBatch& batch = test_case.batch;
  FakeQuantGrid grid = batch.grid;
  grid.group_size = batch.group_sizes[i];
  const auto zero = batch.zero_points.empty() ? std::nullopt : std::optional(batch.zero_points[i]);
  EXPECT_TRUE(
      at::equal(weights[i], ops::fake_quant(batch.weights[i], batch.scales[i], zero, grid, weights[i].scalar_type())))
      << i;
  const ops::FakeQuantGradients one =
      ops::fake_quant_backward(test_case.grads[i], batch.weights[i], batch.scales[i], zero, grid);
  EXPECT_TRUE(at::equal(gradients.weights[i], one.weight)) << i;
  EXPECT_TRUE(at::equal(gradients.scales[i], one.scale)) << i;
  if (zero) {
    EXPECT_TRUE(at::equal(gradients.zero_points[i], one.zero_point)) << i;
  }
}

const std::vector<std::pair<Grid, int>>& data_scale_grids() {
  static const std::vector<std::pair<Grid, int>> grids = {
      {Grid::kSymmetric, 2}, {Grid::kSymmetric, 8}, {Grid::kAsymmetric, 2}, {Grid::kAsymmetric, 4},
      {Grid::kSeq, 2},       {Grid::kTernary, 2},   {Grid::kBinary, 1},     {Grid::kBitNet, 2}};
  return grids;
}

ops::FakeQuantBatch make_data_scale_batch(Grid kind, int bits, at::ScalarType dtype) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(61);
  ops::FakeQuantBatch batch;
  batch.grid = {kind, bits, 1};
  for (const int64_t group : {64, 8, 20, 1280, 128, 384})
    for (const int64_t rows : {1, 37}) {
      at::Tensor w = at::randn({rows, group * 2}, generator, at::TensorOptions().dtype(at::kDouble)) * 0.03;
      w.narrow(1, 0, group).abs_();
      if (rows > 1) w[0].zero_();
      batch.weights.push_back(w.to(dtype));
      batch.group_sizes.push_back(group);
    }
  return batch;
}

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor x = found.to(at::kCPU, at::kDouble), y = expected.to(at::kCPU, at::kDouble);
  if (x.numel() == 0 || at::equal(x, y)) return 0;
  return ((x - y).norm() / y.norm()).item<double>();
}

}  // namespace satin::test
