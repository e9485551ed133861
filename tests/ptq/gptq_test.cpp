// GPTQ against NumPy code that eliminates columns from the inverse Hessian one by one, code for code.
#include "ptq/gptq.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "ptq/moments.h"
#include "quant/codes.h"
#include "support/test_support.h"

namespace satin::ptq {
namespace {

struct Problem {
  at::Tensor weight, moments;
};

/// Correlated inputs of very different sizes, one of which is always 0.
Problem problem(int64_t rows, int64_t columns, at::ScalarType dtype = at::kDouble) {
  at::manual_seed(5);
  const at::Tensor weight = at::randn({rows, columns}, at::kDouble) * 0.05;
  const at::Tensor mixing = at::randn({columns, columns}, at::kDouble) * 0.15 + at::eye(columns, at::kDouble);
  at::Tensor x =
      at::mm(at::randn({4 * columns, columns}, at::kDouble), mixing) * at::randn({columns}, at::kDouble).exp();
  x.select(1, 5).zero_();
  return {weight.to(dtype), (at::mm(x.t(), x) / x.size(0)).to(dtype)};
}

quant::QuantizedWeight codes_of(const Rounded& rounded, const quant::Scheme& scheme) {
  return quant::quantize_weight(scheme, rounded.weight, {rounded.state.scale, rounded.state.zero_point, {}, {}}, "w");
}

std::string raw(const at::Tensor& values) {
  return {static_cast<const char*>(values.const_data_ptr()), static_cast<size_t>(values.nbytes())};
}

TEST(Gptq, CodesEqualThoseOfNumPy) {
  SATIN_NEEDS_PYTHON("numpy");
  const Problem p = problem(24, 192);
  const test::TempDir dir;
  test::write_file(dir / "weight", raw(p.weight));
  test::write_file(dir / "hessian", raw(p.moments));
  struct Case {
    quant::Method method;
    int bits;
    int64_t group_size;
    bool act_order;
  };
  using enum quant::Method;
  for (const Case& c : {Case{kLsqAsymmetric, 2, 32, true}, Case{kLsqAsymmetric, 2, 32, false},
                        Case{kLsqAsymmetric, 4, 96, false}, Case{kLsqAsymmetric, 3, -1, false}, Case{kLsq, 3, 64, true},
                        Case{kLsq, 3, 64, false}, Case{kLsq, 4, -1, true}}) {
    const quant::Scheme scheme{
        .method = c.method, .bits = c.bits, .group_size = c.group_size, .init = quant::Init::kData};
    const Rounded found = gptq(p.weight, p.moments, scheme, {0.01, c.act_order}, "w");
    const auto result = test::run_python(
        cat("ptq/gptq_oracle.py ", (dir / "weight").string(), " ", (dir / "hessian").string(), " ",
            (dir / "codes").string(), " 24 192 ", c.method == kLsq ? "symmetric " : "asymmetric ", c.bits, " ",
            c.group_size < 0 ? 192 : c.group_size, " 0.01 ", c.act_order ? "falling" : "own"));
    ASSERT_EQ(result.exit_code, 0) << result.output;
    const quant::QuantizedWeight ours = codes_of(found, scheme);
    EXPECT_EQ(raw(ours.codes), test::read_file(dir / "codes")) << quant::describe(scheme) << ", " << c.act_order;
    EXPECT_GT(std::get<0>(at::_unique(ours.codes)).numel(), 2);
  }
}

TEST(Gptq, ErrsLessThanRoundingOnEveryGridWithLearnedScales) {
  const Problem p = problem(32, 128, at::kFloat);
  using enum quant::Method;
  for (const quant::Method method : {kLsqAsymmetric, kLsq, kSeq, kTernary, kBinary})
    for (const bool act_order : {true, false})
      for (const int64_t group_size : {32, -1, 0}) {
        // Signs are so coarse that what is compensated enlarges the scales of the groups that follow.
        if (method == kBinary && !act_order && group_size == 32) continue;
        const quant::Scheme scheme{.method = method, .bits = method == kBinary ? 1 : 2, .group_size = group_size};
        const auto error = [&](const at::Tensor& rounded) { return fidelity(p.weight, rounded, p.moments, {}).error; };
        const double nearest = error(quant::dequantize(quant::round_to_nearest(p.weight, scheme)));
        Rounded found = gptq(p.weight, p.moments, scheme, {0.01, act_order}, "w");
        if (group_size == 0) found.state.scale = found.state.scale.narrow(0, 0, 1);
        if (group_size == 0 && scheme.has_zero_point()) found.state.zero_point = found.state.zero_point.narrow(0, 0, 1);
        EXPECT_LT(error(quant::dequantize(codes_of(found, scheme))), nearest)
            << quant::describe(scheme) << " " << act_order;
      }
}

TEST(Gptq, ColumnsKeepTheirBits) {
  const Problem p = problem(16, 128, at::kFloat);
  for (const quant::Method method : {quant::Method::kLsqAsymmetric, quant::Method::kLsq})
    for (const bool act_order : {true, false}) {
      const GptqOptions options{0.01, act_order};
      quant::Scheme scheme{method, 4, 32};
      scheme.column_bits = {3, 3, 3, 3};
      const Rounded same = gptq(p.weight, p.moments, scheme, options, "w"),
                    plain = gptq(p.weight, p.moments, {method, 3, 32}, options, "w");
      EXPECT_TRUE(same.weight.equal(plain.weight));
      EXPECT_TRUE(same.state.scale.equal(plain.state.scale));
      EXPECT_TRUE(quant::dequantize(codes_of(same, scheme)).equal(quant::dequantize(codes_of(plain, {method, 3, 32}))));

      scheme.column_bits = {3, 2, 4, 3};
      const Rounded found = gptq(p.weight, p.moments, scheme, options, "w");
      const at::Tensor codes = codes_of(found, scheme).codes;
      for (int64_t group = 0; group < 4; ++group) {
        const int count = 1 << scheme.column_bits[static_cast<size_t>(group)];
        const int lowest = method == quant::Method::kLsq ? 8 - count / 2 : 0;
        const auto [least, most] = at::aminmax(codes.narrow(1, group * 32, 32));
        EXPECT_EQ(least.item<int>(), lowest);
        EXPECT_EQ(most.item<int>(), lowest + count - 1);
      }
      // What the layer's own rounding makes of the found weights is what was compensated for.
      const auto error = [&](const at::Tensor& rounded) { return fidelity(p.weight, rounded, p.moments, {}).error; };
      EXPECT_LT(error(quant::dequantize(codes_of(found, scheme))),
                error(quant::dequantize(quant::round_to_nearest(p.weight, scheme))));
    }
}

TEST(Gptq, TheInversesDiagonal) {
  const Problem p = problem(4, 64);
  at::Tensor damped = p.moments.clone();
  damped[5][5] = 1;  // the input that is always 0
  damped.diagonal().add_(0.01 * damped.diagonal().mean());
  EXPECT_TRUE(at::allclose(inverse_diagonal(p.moments, 0.01, "w"), at::linalg_inv(damped).diagonal(), 1e-9, 0));
}

TEST(Gptq, SingularMomentsAreDampedOrRefused) {
  Problem p = problem(8, 64, at::kFloat);
  const at::Tensor x = at::randn({1, 64});
  const quant::Scheme scheme{.bits = 2, .group_size = 32};
  const Rounded found = gptq(p.weight, at::mm(x.t(), x), scheme, {}, "w");  // rank 1
  EXPECT_TRUE(at::isfinite(found.weight).all().item<bool>());
  p.moments[3][3] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(gptq(p.weight, p.moments, scheme, {}, "w"), UserError);
}

}  // namespace
}  // namespace satin::ptq
