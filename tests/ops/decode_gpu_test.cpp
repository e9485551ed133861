// Decoding's kernels on CUDA against double, and the same bits every time; a graph of them.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ops/decode_cases.h"
#include "ops/needs_hopper.h"
#include "ops/replay.h"
#include "ops/step_ends_cases.h"

namespace satin::ops {
namespace {

const at::Device kCuda(at::kCUDA, 0);

/// Of attention over the cache. y is rounded by at most u = 2^-9 of itself in bfloat16, 2^-12 in half. So are weights,
/// and their sum is the sum of the rounded ones: that makes y wrong by at most u of the weighted mean of |values|, and
/// of independent values by about u of itself. Twice as much for values that cancel, and for rotated numbers that round
/// to another neighbour than in double.
double attention_tolerance(at::ScalarType dtype) { return 4 * std::exp2(dtype == at::kHalf ? -12 : -9); }

TEST(DecodeGpu, AttendsOverTheCache) {
  SATIN_NEEDS_HOPPER();
  auto cases = attention_cases();
  for (const auto stored_as : {std::optional<ActivationFormat>(), std::optional(ActivationFormat::kInt8)})
    cases.push_back({32, 8, 64, 4097, {4096, 4095, 17, 4079}, stored_as});  // long on the CPU
  for (const auto& attention : cases)
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      SCOPED_TRACE(testing::Message() << attention << ' ' << dtype);
      const AttentionData data(attention, kCuda, dtype);
      std::vector<at::Tensor> found;
      for (int repeat = 0; repeat < 3; ++repeat) {
        const AttentionCache cache = data.copy();
        found.push_back(cached_attention(data.q, data.k, data.v, cache, attention.stored_as));
        data.expect_one_new_place(cache);
        EXPECT_TRUE(found.back().equal(found.front())) << "the same bits every time";
      }
      EXPECT_LT(relative_error(found.front(), data.expected), attention_tolerance(dtype));
      EXPECT_TRUE(found.front().equal(data.over_numbers())) << "integers give the bits of their numbers";
    }
}

TEST(DecodeGpu, HoldsRowsAsTheCpuDoes) {
  SATIN_NEEDS_HOPPER();
  const at::Tensor x = at::randn({3, 2, 40, 64}).mul_(at::rand({3, 2, 40, 1}) * 9).to(at::kBFloat16);
  for (const auto format : {ActivationFormat::kInt8, ActivationFormat::kInt4}) {
    const CacheRows expected = cache_rows(x, format), found = cache_rows(x.to(kCuda), format);
    EXPECT_TRUE(found.rows.cpu().equal(expected.rows));
    EXPECT_TRUE(found.scales.cpu().equal(expected.scales));
    EXPECT_TRUE(numbers_of(found, format, at::kBFloat16).equal(act_quant(x.to(kCuda), format)));
  }
}

TEST(DecodeGpu, DamagedKeysOfIntegersAreSeen) {
  SATIN_NEEDS_HOPPER();
  for (const auto format : {ActivationFormat::kInt8, ActivationFormat::kInt4}) {
    const AttentionData data({4, 2, 64, 20, {5, 7}, format}, kCuda, at::kBFloat16);
    at::Tensor k = data.k.clone();
    k[0][1][3] = std::numeric_limits<float>::quiet_NaN();
    const AttentionCache cache = data.copy();
    const at::Tensor y = cached_attention(data.q, k, data.v, cache, format).view({2, 4, 64}).cpu();
    EXPECT_TRUE(y[0].narrow(0, 2, 2).isnan().all().item<bool>()) << "heads of the damaged key";
    EXPECT_FALSE(y[1].isnan().any().item<bool>() || y[0].narrow(0, 0, 2).isnan().any().item<bool>());
    EXPECT_TRUE(cache.keys.scales[0][1][5].isnan().item<bool>());
  }
}

TEST(DecodeGpu, MultipliesRows) {
  SATIN_NEEDS_HOPPER();
  for (const auto& one : decode_cases())
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      if (one.num_rows > 4 && dtype == at::kHalf) continue;
      SCOPED_TRACE(testing::Message() << one << ' ' << dtype);
      const DecodeData data(one, kCuda, dtype);
      const at::Tensor found = decode_rows(data.call());
      EXPECT_EQ(found.scalar_type(), one.wide ? at::kFloat : dtype);
      // What is rounded on the way: f(x), a 16-bit y, and in the fallback a product before it is summed.
      const double unit = dtype == at::kHalf ? 1e-3 : 8e-3;
      EXPECT_LT(relative_error(found, data.expected()), one.wide ? unit / 4 : unit);
      EXPECT_TRUE(decode_rows(data.call()).equal(found)) << "the same bits every time";
    }
}

TEST(DecodeGpu, WaitsForTheKernelsBefore) {
  SATIN_NEEDS_HOPPER();
  for (const int64_t num_rows : {1, 3, 8})
    for (int repeat = 0; repeat < 20; ++repeat) {
      DecodeData data({num_rows, 2048, 1024, 8, 2, false, false, true, true, true}, kCuda, at::kBFloat16);
      // The last kernels before make bias and residual, one after the other.
      const at::Tensor wide = at::randn({num_rows, 2048}, data.residual.options());
      data.residual = (wide.matmul(at::randn({2048, 2048}, wide.options())) + wide).contiguous();
      data.bias = data.residual.select(0, 0).to(at::kBFloat16);
      const at::Tensor found = decode_rows(data.call());
      EXPECT_LT(relative_error(found, data.expected()), 2e-3) << num_rows << " rows";
      EXPECT_TRUE(found.equal(decode_rows(data.call()))) << "after the device has ended";
    }
}

TEST(DecodeGpu, BeginsSteps) {
  SATIN_NEEDS_HOPPER();
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kFloat}) expect_step_begins(kCuda, dtype);
}

TEST(DecodeGpu, FindsTheMostLikely) {
  SATIN_NEEDS_HOPPER();
  expect_most_likely(kCuda);
}

TEST(DecodeGpu, ReplaysWhatItRecorded) {
  SATIN_NEEDS_HOPPER();
  at::Tensor x = at::zeros({4}, at::TensorOptions().device(kCuda)), y;
  Replay replay(
      [&] {
        x.add_(1);
        y = x * 2;
      },
      kCuda);
  for (int run = 1; run <= 4; ++run) {
    replay.run();
    EXPECT_TRUE(y.cpu().equal(at::full({4}, 2. * run))) << run;
  }
}

}  // namespace
}  // namespace satin::ops
