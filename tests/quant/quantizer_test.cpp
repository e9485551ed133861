// Starting values: the published errors on Gaussian weights, and formulas on data where they can be written down.
#include "quant/quantizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "quant/codes.h"

namespace satin::quant {
namespace {

double gaussian_error(Method method, bool mse) {
  at::manual_seed(5);
  const at::Tensor w = at::randn({8192, 256});
  Scheme scheme{method, 2, 64};
  scheme.init = mse ? Init::kSearch : Init::kData;
  const at::Tensor back = dequantize(round_to_nearest(w, scheme)).to(at::kFloat);
  return ((back - w).square().sum() / w.square().sum()).item<double>();
}

// Relative squared error at 2 bits, group 64: the figures of the quantizers' specification (three digits).
TEST(InitialState, PublishedErrorsOnGaussianWeights) {
  EXPECT_NEAR(gaussian_error(Method::kLsq, false), 0.515, 0.006);
  EXPECT_NEAR(gaussian_error(Method::kMinMaxSymmetric, false), 0.261, 0.003);
  EXPECT_NEAR(gaussian_error(Method::kMinMaxAsymmetric, false), 0.209, 0.002);
  EXPECT_NEAR(gaussian_error(Method::kLsqAsymmetric, false), 0.209, 0.002);
  EXPECT_NEAR(gaussian_error(Method::kLsq, true), 0.143, 0.002);
  EXPECT_NEAR(gaussian_error(Method::kLsqAsymmetric, true), 0.126, 0.002);
  EXPECT_NEAR(gaussian_error(Method::kSeq, false), 0.148, 0.002);
  EXPECT_LE(gaussian_error(Method::kSeq, true), 0.148);
  EXPECT_LT(gaussian_error(Method::kTernary, true), gaussian_error(Method::kTernary, false));
}

TEST(InitialState, ExtremesByHand) {
  // One group of 8: min -3, max 1.
  const at::Tensor w = at::tensor({-3.0f, 1.0f, 0.0f, 0.5f, -1.0f, -2.0f, 0.25f, 0.0f}).view({1, 8});
  const auto state = [&](Method method, int bits) { return state_from_data(w, {method, bits, 8, Storage::kExact}); };
  EXPECT_FLOAT_EQ(state(Method::kMinMaxSymmetric, 2).scale.item<float>(), 2);
  EXPECT_FLOAT_EQ(state(Method::kLsq, 3).scale.item<float>(), 1);
  EXPECT_FLOAT_EQ(state(Method::kSeq, 2).scale.item<float>(), 3);
  EXPECT_FLOAT_EQ(state(Method::kTernary, 2).scale.item<float>(), 3);
  const QuantizerState asymmetric = state(Method::kLsqAsymmetric, 2);
  EXPECT_FLOAT_EQ(asymmetric.scale.item<float>(), 4.0f / 3);
  EXPECT_FLOAT_EQ(asymmetric.zero_point.item<float>(), 2);
  EXPECT_FALSE(state(Method::kLsq, 2).zero_point.defined());
  // All weights above zero: the range still reaches 0, which is code 0.
  const QuantizerState positive = state_from_data(w.abs() + 1, {Method::kMinMaxAsymmetric, 2, 8, Storage::kExact});
  EXPECT_FLOAT_EQ(positive.scale.item<float>(), 4.0f / 3);
  EXPECT_EQ(positive.zero_point.item<float>(), 0);
}

TEST(InitialState, ZeroGroupsAndOneScaleARow) {
  for (Method method : {Method::kMinMaxSymmetric, Method::kMinMaxAsymmetric, Method::kLsq, Method::kLsqAsymmetric,
                        Method::kSeq, Method::kTernary, Method::kBitNet})
    for (int64_t group : {-1, 64}) {
      const QuantizedWeight zeros = round_to_nearest(at::zeros({2, 128}), {method, 2, group});
      EXPECT_EQ(zeros.scale.size(1), group < 0 ? 1 : 2);
      EXPECT_LT(dequantize(zeros).abs().max().item<float>(), 1e-5);
    }
}

}  // namespace
}  // namespace satin::quant
