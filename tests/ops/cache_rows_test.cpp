// What a cache holds of keys and values: the bits of act_quant in fewer bytes.
#include "ops/cache_rows.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"

namespace satin::ops {
namespace {

constexpr auto kInt8 = ActivationFormat::kInt8, kInt4 = ActivationFormat::kInt4;

at::Tensor some(at::ScalarType dtype) {
  at::manual_seed(4);
  at::Tensor x = at::randn({2, 3, 50, 10}, at::kDouble).mul_(at::rand({2, 3, 50, 1}, at::kDouble).mul_(12).exp_());
  x[0][1][7].zero_();
  x[0][1][8].fill_(1e-9);  // below the least scale
  x[1][2][9] = at::arange(10, at::kDouble) - 4.5;
  return x.to(dtype);
}

TEST(CacheRows, AreTheNumbersOfActQuant) {
  for (const auto format : {kInt8, kInt4})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
      SCOPED_TRACE(testing::Message() << (format == kInt8 ? "int8 " : "int4 ") << dtype);
      const at::Tensor x = some(dtype);
      for (const at::Tensor& strided : {x, x.transpose(1, 2)}) {
        const CacheRows held = cache_rows(strided, format);
        EXPECT_EQ(held.rows.scalar_type(), at::kChar);
        EXPECT_TRUE(numbers_of(held, format, dtype).equal(act_quant(strided, format)));
      }
    }
  const at::Tensor x = some(at::kBFloat16);
  EXPECT_TRUE(numbers_of(cache_rows(x, {}), {}, at::kBFloat16).is_alias_of(x));
}

TEST(CacheRows, HaveTheEvenFeatureInTheLowHalf) {
  const CacheRows held = cache_rows(at::tensor({7., -7., 0., 3., -1., 5.}), kInt4);
  EXPECT_TRUE(held.rows.bitwise_and(255).equal(at::tensor({0x97 - 256, 0x30, 0x5f}, at::kChar)));
  EXPECT_EQ(held.scales.item<double>(), 1);
}

TEST(CacheRows, TakeAHalfAndAQuarterOfBfloat16) {
  const at::Tensor x = at::randn({1, 2, 100, 64}).to(at::kBFloat16);
  EXPECT_EQ(cache_rows(x, {}).bytes(), 200 * 128);
  EXPECT_EQ(cache_rows(x, kInt8).bytes(), 200 * (64 + 4));
  EXPECT_EQ(cache_rows(x, kInt4).bytes(), 200 * (32 + 4));
}

TEST(CacheRows, ShowDamage) {
  for (const double damage : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    for (const auto format : {kInt8, kInt4}) {
      at::Tensor x = at::randn({2, 8});
      x[1][3] = damage;
      const at::Tensor found = numbers_of(cache_rows(x, format), format, at::kFloat).isnan();
      EXPECT_TRUE(found[1].all().item<bool>());
      EXPECT_FALSE(found[0].any().item<bool>());
    }
}

TEST(CacheRows, RefuseWhatTheyCannotHold) {
  try {
    cache_rows(at::randn({2, 5}), kInt4);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(),
                 "keys and values as int4: expected an even number of features a head (two to a byte), found 5; use "
                 "int8 or none");
  }
  EXPECT_THROW(cache_rows(at::randn({2, 4}), ActivationFormat::kFloat8), InternalError);
  EXPECT_THROW(numbers_of(cache_rows(at::randn({2, 4}), {}), kInt8, at::kFloat), InternalError);
  EXPECT_THROW(numbers_of(cache_rows(at::randn({2, 4}), kInt8), {}, at::kFloat), InternalError);
}

}  // namespace
}  // namespace satin::ops
