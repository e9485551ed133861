// The export contract: codes and stored scales rebuild the training forward's weight bit for bit, for every method.
#include "quant/codes.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"

namespace satin::quant {
namespace {

std::vector<Scheme> schemes() {
  std::vector<Scheme> all;
  for (Method method :
       {Method::kMinMaxSymmetric, Method::kMinMaxAsymmetric, Method::kLsq, Method::kLsqAsymmetric, Method::kSeq,
        Method::kTernary, Method::kBinary, Method::kBitNet, Method::kLwc, Method::kOneBit})
    for (int bits : {1, 2, 3, 4, 5, 6, 8})
      for (int64_t group : {32, 64, 128, -1, 0})
        for (Storage storage : {Storage::kBFloat16, Storage::kFloat16, Storage::kExact}) {
          const bool two_bits = method == Method::kSeq || Scheme{.method = method}.has_three_levels();
          const bool one_bit = method == Method::kBinary || method == Method::kOneBit;
          if (one_bit != (bits == 1) || (two_bits && bits != 2)) continue;
          if ((method == Method::kOneBit && group != -1) || (method == Method::kLwc && group == 0)) continue;
          all.push_back({method, bits, group, storage, storage});
        }
  return all;
}

void check_contract(at::Device device, at::ScalarType master_dtype, at::ScalarType compute_dtype) {
  at::manual_seed(8);
  const at::Tensor values = at::randn({6, 256}) * 0.02;
  for (const Scheme& scheme : schemes()) {
    SCOPED_TRACE(describe(scheme));
    nn::ParameterStore store({device, master_dtype, compute_dtype, true});
    QuantLinear linear({"model.layers.0.mlp.up_proj", 256, 6}, scheme, store);
    const at::NoGradGuard no_grad;
    store.at("model.layers.0.mlp.up_proj.weight").copy_(values);
    linear.initialise();
    // As training leaves them: scales between storage numbers, zero points between integers.
    for (const nn::Parameter& parameter : store.all()) {
      if (parameter.role == nn::Role::kScale) parameter.value.mul_(1.0371);
      if (parameter.role == nn::Role::kZeroPoint) parameter.value.add_(0.3);
      if (parameter.role == nn::Role::kClip) parameter.value.sub_(at::rand_like(parameter.value) * 4);
    }
    const QuantizedWeight quantized = quantize_weight(linear);
    ASSERT_EQ(quantized.codes.scalar_type(), at::kByte);
    ASSERT_EQ(quantized.scale.scalar_type(),
              storage_dtype(scheme.scale_dtype, master_dtype == at::kDouble ? at::kDouble : at::kFloat));
    ASSERT_LT(quantized.codes.max().item<int>(), 1 << scheme.bits);
    const at::ScalarType exact = master_dtype == at::kDouble ? at::kDouble : at::kFloat;
    ASSERT_TRUE(at::equal(dequantize(quantized).to(exact), linear.weight(exact)));
    ASSERT_TRUE(at::equal(dequantize(quantized).to(compute_dtype), linear.weight()));

    // The same from bare tensors, as a checkpoint holds them.
    QuantizerParameters parameters;
    for (const QuantizerParameter& parameter : parameters_of(scheme))
      parameters.*parameter.member = store.at(std::string("model.layers.0.mlp.up_proj.") + parameter.name);
    const QuantizedWeight again =
        quantize_weight(scheme, store.at("model.layers.0.mlp.up_proj.weight"), parameters, "m");
    ASSERT_TRUE(at::equal(again.codes, quantized.codes));
    ASSERT_TRUE(at::equal(again.scale, quantized.scale));
    ASSERT_TRUE(at::equal(again.zero_point, quantized.zero_point));
  }
}

TEST(Codes, RebuildTheForwardsWeight) {
  check_contract(at::kCPU, at::kFloat, at::kFloat);
  check_contract(at::kCPU, at::kFloat, at::kBFloat16);
  check_contract(at::kCPU, at::kBFloat16, at::kBFloat16);
  check_contract(at::kCPU, at::kDouble, at::kDouble);
}

TEST(Codes, RebuildTheForwardsWeightOnTheGpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "needs a CUDA device and a build with CUDA";
  check_contract(at::kCUDA, at::kFloat, at::kBFloat16);
  check_contract(at::kCUDA, at::kBFloat16, at::kBFloat16);
}

TEST(Codes, LevelsOfEachGridByHand) {
  const at::Tensor w = at::tensor({-4.0f, -1.0f, 1.0f, 4.0f}).view({1, 4});
  // SEQ, a = 4: levels -3, -1, 1, 3 of a/4
  Scheme seq{Method::kSeq, 2, 4};
  seq.init = Init::kData;
  const QuantizedWeight four = round_to_nearest(w, seq);
  EXPECT_TRUE(at::equal(four.codes, at::tensor({0, 1, 2, 3}).view({1, 4}).to(at::kByte)));
  EXPECT_EQ(four.scale.item<float>(), 1);
  EXPECT_EQ(four.zero_point.item<int>(), 3);
  EXPECT_EQ(code_step(seq), 2);
  EXPECT_TRUE(at::equal(levels(four), at::tensor({-3, -1, 1, 3}).view({1, 4}).to(at::kInt)));
  EXPECT_TRUE(at::equal(dequantize(four).to(at::kFloat), at::tensor({-3.0f, -1.0f, 1.0f, 3.0f}).view({1, 4})));
  // Ternary, a = 3 (stored 2)
  Scheme ternary{Method::kTernary, 2, 4};
  ternary.init = Init::kData;
  const QuantizedWeight three = round_to_nearest(w * 0.75, ternary);
  EXPECT_TRUE(at::equal(three.codes, at::tensor({0, 1, 1, 2}).view({1, 4}).to(at::kByte)));
  EXPECT_EQ(three.scale.item<float>(), 2);
  EXPECT_EQ(three.zero_point.item<int>(), 1);
  EXPECT_TRUE(at::equal(levels(three), at::tensor({-1, 0, 0, 1}).view({1, 4}).to(at::kInt)));
  // Symmetric 2 bits, s = 4 / 1.5 rounded to bfloat16: codes 0..3 are -2..1
  const QuantizedWeight symmetric = round_to_nearest(w, {Method::kMinMaxSymmetric, 2, 4});
  EXPECT_EQ(symmetric.zero_point.item<int>(), 2);
  EXPECT_TRUE(at::equal(symmetric.codes, at::tensor({0, 2, 2, 3}).view({1, 4}).to(at::kByte)) ||
              at::equal(symmetric.codes, at::tensor({1, 2, 2, 3}).view({1, 4}).to(at::kByte)));
}

TEST(Codes, NaNHasNone) {
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    at::Tensor w = at::randn({2, 64});
    w[1][7] = bad;
    for (Method method : {Method::kMinMaxAsymmetric, Method::kLsq, Method::kSeq})
      EXPECT_THROW(round_to_nearest(w, {method, 2, 64}, "model.q_proj"), UserError);
  }
  EXPECT_THROW(round_to_nearest(at::zeros({2, 64}), {Method::kLsq, 2, 48}), UserError);
  const at::Tensor w = at::randn({2, 64}), scale = at::ones({2, 1});
  EXPECT_THROW(quantize_weight({Method::kLsqAsymmetric, 2, 64}, w, {scale}, "m"), UserError) << "no zero point";
  EXPECT_THROW(quantize_weight({Method::kLsq, 2, 64}, w, {}, "m"), UserError) << "no scale";
  EXPECT_THROW(quantize_weight({Method::kLsq, 2, 32}, w, {scale}, "m"), UserError) << "another shape";
}

}  // namespace
}  // namespace satin::quant
