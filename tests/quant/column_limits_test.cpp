// Columns of fewer bits on a wider grid, against plain schemes of those bits.
#include "quant/column_limits.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "ops/packed_linear.h"
#include "quant/codes.h"
#include "quant/low_bit_matmul.h"
#include "quant/packed_rows.h"

namespace satin::quant {
namespace {

constexpr int64_t kRows = 6, kGroup = 32;

/// Weights of which many are beyond the ends, and states that the storage format, the floor and the zero's range
/// change.
struct Case {
  at::Tensor weight;
  QuantizerState state;
};
Case make_case(const Scheme& scheme, const std::vector<int>& bits, at::ScalarType dtype) {
  at::manual_seed(11);
  const auto num_groups = static_cast<int64_t>(bits.size());
  Case made{at::randn({kRows, num_groups * kGroup}, at::kDouble).to(dtype), {}};
  made.state.scale = at::empty({kRows, num_groups}, dtype);
  for (int64_t group = 0; group < num_groups; ++group)
    made.state.scale.select(1, group).copy_((1 + 0.3 * at::rand({kRows}, at::kDouble)) * 3 /
                                            std::exp2(bits[static_cast<size_t>(group)]));
  made.state.scale[0][0] = 1e-9;  // below the floor
  if (scheme.has_zero_point()) {
    made.state.zero_point = at::empty_like(made.state.scale);
    for (int64_t group = 0; group < num_groups; ++group) {
      const double top = std::exp2(bits[static_cast<size_t>(group)]) - 1;
      made.state.zero_point.select(1, group).copy_(top / 2 + at::randn({kRows}, at::kDouble));
      made.state.zero_point[1][group] = top + 1.7;
      made.state.zero_point[2][group] = -0.8;
    }
  }
  return made;
}

struct Result {
  at::Tensor value, weight, scale, zero_point;  ///< the value, and gradients
};
Result result_of(const Case& at_case, const Scheme& scheme, const at::Tensor& gradient) {
  const auto leaf = [](const at::Tensor& value) { return value.clone().requires_grad_(); };
  std::vector<at::Tensor> inputs{leaf(at_case.weight), leaf(at_case.state.scale)};
  if (at_case.state.zero_point.defined()) inputs.push_back(leaf(at_case.state.zero_point));
  const at::Tensor value = fake_quantized(inputs[0], {inputs[1], inputs.size() > 2 ? inputs[2] : at::Tensor()}, scheme,
                                          at_case.weight.scalar_type());
  const auto found = torch::autograd::grad({value}, inputs, {gradient});
  return {value.detach(), found[0], found[1], found.size() > 2 ? found[2] : at::Tensor()};
}

/// Group by group under plain schemes.
Result result_of_plain(const Case& at_case, const Scheme& scheme, const std::vector<int>& bits,
                       const at::Tensor& gradient) {
  std::vector<at::Tensor> values, weights, scales, zeros;
  for (size_t i = 0; i < bits.size(); ++i) {
    const auto group = static_cast<int64_t>(i);
    const auto columns = [&](const at::Tensor& of) { return of.narrow(1, group * kGroup, kGroup).contiguous(); };
    const auto one = [&](const at::Tensor& of) { return of.defined() ? of.narrow(1, group, 1).contiguous() : of; };
    Scheme plain = scheme.stored();
    plain.bits = bits[i];
    const Result found = result_of({columns(at_case.weight), {one(at_case.state.scale), one(at_case.state.zero_point)}},
                                   plain, columns(gradient));
    values.push_back(found.value);
    weights.push_back(found.weight);
    scales.push_back(found.scale);
    zeros.push_back(found.zero_point);
  }
  return {at::cat(values, 1), at::cat(weights, 1), at::cat(scales, 1),
          scheme.has_zero_point() ? at::cat(zeros, 1) : at::Tensor()};
}

void expect_near(const at::Tensor& found, const at::Tensor& expected, double tolerance, const std::string& what) {
  EXPECT_LE((found - expected).abs().max().item<double>(), tolerance * expected.abs().max().item<double>()) << what;
}

TEST(ColumnLimits, AreThePlainSchemesOfTheirBits) {
  for (const Method method : {Method::kLsq, Method::kLsqAsymmetric})
    for (const Storage storage : {Storage::kBFloat16, Storage::kFloat16, Storage::kExact})
      for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
        for (const std::vector<int>& bits : std::vector<std::vector<int>>{{2, 2}, {3, 3, 3}, {2, 4, 3, 3}, {7, 8, 2}}) {
          Scheme scheme{method, 4, kGroup, storage, storage};
          scheme.column_bits = bits;
          scheme.bits = std::max(4, *std::ranges::max_element(bits));
          SCOPED_TRACE(testing::Message() << describe(scheme) << " " << toString(dtype));
          const Case now = make_case(scheme, bits, dtype);
          const at::Tensor gradient = at::randn(now.weight.sizes(), at::kDouble).to(dtype);
          const Result found = result_of(now, scheme, gradient),
                       expected = result_of_plain(now, scheme, bits, gradient);
          EXPECT_TRUE(found.value.equal(expected.value)) << "the forward's bits";
          EXPECT_TRUE(found.weight.equal(expected.weight)) << "who gets a gradient";
          EXPECT_LT(found.weight.ne(0).to(at::kDouble).mean().item<double>(), 0.98) << "some are beyond the ends";
          const double tolerance = dtype == at::kDouble ? 1e-12 : 2e-5;
          expect_near(found.scale, expected.scale, tolerance, "scale");
          if (scheme.has_zero_point()) expect_near(found.zero_point, expected.zero_point, tolerance, "zero point");
        }
}

TEST(ColumnLimits, CodesAreThoseOfTheirBits) {
  for (const Method method : {Method::kLsq, Method::kLsqAsymmetric}) {
    Scheme scheme{method, 4, kGroup};
    scheme.column_bits = {2, 4, 3};
    const Case now = make_case(scheme, scheme.column_bits, at::kFloat);
    const QuantizedWeight found =
        quantize_weight(scheme, now.weight, {now.state.scale, now.state.zero_point, {}, {}}, "w");
    EXPECT_TRUE(dequantize(found).to(at::kFloat).equal(fake_quantized(now.weight, now.state, scheme, at::kFloat)));
    for (int64_t group = 0; group < 3; ++group) {
      Scheme plain = scheme.stored();
      plain.bits = scheme.column_bits[static_cast<size_t>(group)];
      const auto one = [&](const at::Tensor& of) { return of.defined() ? of.narrow(1, group, 1).contiguous() : of; };
      const at::Tensor columns = now.weight.narrow(1, group * kGroup, kGroup).contiguous();
      const QuantizedWeight wanted =
          quantize_weight(plain, columns, {one(now.state.scale), one(now.state.zero_point), {}, {}}, "w");
      const int64_t shift = method == Method::kLsq ? 8 - (1 << (plain.bits - 1)) : 0;
      EXPECT_TRUE(found.codes.narrow(1, group * kGroup, kGroup).equal(wanted.codes + shift));
      EXPECT_TRUE(found.zero_point.narrow(1, group, 1).equal(wanted.zero_point + shift));
      EXPECT_TRUE(found.scale.narrow(1, group, 1).equal(wanted.scale));
    }
    // What int8 products multiply with, and what travels between processes.
    EXPECT_TRUE(ops::dequantize_rows(pack_for_product(now.weight, now.state, scheme), 0, kRows, at::kFloat)
                    .equal(fake_quantized(now.weight, now.state, scheme, at::kFloat)));
    const LimitedWeight in = limited(now.weight, now.state, scheme);
    const ops::FakeQuantGrid grid = kernel_grid(scheme, now.weight.size(1));
    EXPECT_TRUE(unpack_rows(pack_rows(in.weight, in.state.scale, in.state.zero_point, grid), grid, now.weight.size(1),
                            at::kFloat, at::kFloat)
                    .equal(fake_quantized(now.weight, now.state, scheme, at::kFloat)));
  }
}

TEST(ColumnLimits, ChangeNothingWhereAllColumnsHaveTheGrid) {
  Scheme scheme{Method::kLsqAsymmetric, 3, kGroup};
  const Case now = make_case(scheme, {3, 3}, at::kFloat);
  for (const std::vector<int>& bits : std::vector<std::vector<int>>{{}, {3, 3}}) {
    scheme.column_bits = bits;
    const LimitedWeight found = limited(now.weight, now.state, scheme);
    EXPECT_TRUE(found.weight.is_same(now.weight));
    EXPECT_TRUE(found.state.scale.is_same(now.state.scale));
    EXPECT_FALSE(found.inside.defined());
  }
}

TEST(ColumnLimits, NaNStaysNaN) {
  for (const Method method : {Method::kLsq, Method::kLsqAsymmetric}) {
    Scheme scheme{method, 4, kGroup};
    scheme.column_bits = {2, 4};
    Case now = make_case(scheme, scheme.column_bits, at::kFloat);
    now.weight[3][1] = std::nanf("");
    const at::Tensor value = fake_quantized(now.weight, now.state, scheme, at::kFloat);
    EXPECT_TRUE(std::isnan(value[3][1].item<float>()));
    EXPECT_EQ(value.isnan().sum().item<int64_t>(), 1);
    now.state.scale[4][0] = std::nanf("");
    EXPECT_EQ(fake_quantized(now.weight, now.state, scheme, at::kFloat).isnan().sum().item<int64_t>(), 1 + kGroup);
  }
}

TEST(ColumnLimits, StartWhereThePlainSchemesStart) {
  at::manual_seed(3);
  const at::Tensor weight = at::randn({16, 4 * kGroup}), importance = at::rand({4 * kGroup});
  for (const Method method : {Method::kLsq, Method::kLsqAsymmetric})
    for (const Init init : {Init::kData, Init::kSearch, Init::kWeightedSearch}) {
      Scheme scheme{method, 4, kGroup};
      scheme.init = init;
      scheme.column_bits = {3, 2, 4, 3};
      const QuantizerState found = initial_state(weight, scheme, importance);
      for (int64_t group = 0; group < 4; ++group) {
        Scheme plain = scheme.stored();
        plain.bits = scheme.column_bits[static_cast<size_t>(group)];
        const QuantizerState wanted = initial_state(weight, plain, importance);
        EXPECT_TRUE(found.scale.select(1, group).equal(wanted.scale.select(1, group)));
        if (!scheme.has_zero_point()) continue;
        EXPECT_TRUE(found.zero_point.select(1, group).equal(wanted.zero_point.select(1, group)));
      }
    }
}

TEST(ColumnLimits, AQuantizerTakesBitsOfColumnsAndGivesThemUp) {
  nn::ParameterStore store({at::kCPU, at::kFloat, at::kFloat, true});
  Quantizer quantizer("m", 8, 2 * kGroup, {Method::kLsqAsymmetric, 3, kGroup}, store);
  const at::Tensor weight = at::randn({8, 2 * kGroup});
  quantizer.set_column_bits({2, 4});
  quantizer.initialise(weight);
  EXPECT_EQ(quantizer.scheme().bits, 4);
  EXPECT_EQ(quantizer.grid().bits, 4);
  const at::Tensor narrow = quantizer.quantize(weight, at::kFloat).narrow(1, 0, kGroup);
  for (int64_t row = 0; row < 8; ++row) EXPECT_LE(std::get<0>(at::_unique(narrow[row])).numel(), 4);
  quantizer.set_bits(3, /*keep_range=*/false);
  EXPECT_EQ(quantizer.scheme(), (Scheme{Method::kLsqAsymmetric, 3, kGroup}));
}

}  // namespace
}  // namespace satin::quant
