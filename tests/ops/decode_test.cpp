// What a decoding step is made of: attention over a cache, rows with the norm or gate before and the sum after.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "ops/cached_attention.h"
#include "ops/decode_cases.h"
#include "ops/decode_rows.h"
#include "ops/packed_linear.h"
#include "ops/step_ends_cases.h"

namespace satin::ops {
namespace {

TEST(CachedAttention, EqualsAttentionOfTheWholeText) {
  for (const auto& attention : attention_cases())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      SCOPED_TRACE(testing::Message() << attention << ' ' << dtype);
      const AttentionData data(attention, at::kCPU, dtype);
      const AttentionCache cache = data.copy();
      const at::Tensor found = cached_attention(data.q, data.k, data.v, cache, attention.stored_as);
      EXPECT_LT(relative_error(found, data.expected), dtype == at::kDouble ? 1e-13 : 1e-5);
      EXPECT_TRUE(found.equal(data.over_numbers()));
      data.expect_one_new_place(cache);
    }
}

TEST(CachedAttention, RefusesACacheOfAnotherFormat) {
  const AttentionData data({4, 2, 64, 20, {5}, ActivationFormat::kInt8}, at::kCPU, at::kFloat);
  EXPECT_THROW(cached_attention(data.q, data.k, data.v, data.copy()), InternalError);
  EXPECT_THROW(cached_attention(data.q, data.k, data.v, data.copy(), ActivationFormat::kInt4), InternalError);
  AttentionCache bare = data.copy();
  bare.values.scales = at::Tensor();
  EXPECT_THROW(cached_attention(data.q, data.k, data.v, bare, ActivationFormat::kInt8), InternalError);
}

TEST(CachedAttention, ServesWhatItSays) {
  EXPECT_TRUE(serves_cached_attention(at::kCPU, at::kFloat, 6));
  EXPECT_FALSE(serves_cached_attention(at::kCPU, at::kBFloat16, 64));
}

TEST(DecodeRows, EqualsItsParts) {
  for (const auto& one : decode_cases())
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      SCOPED_TRACE(testing::Message() << one << ' ' << dtype);
      const DecodeData data(one, at::kCPU, dtype);
      EXPECT_LT(relative_error(decode_rows(data.call()), data.expected()), 1e-5);
    }
}

TEST(JoinRows, IsOneWeightOfThem) {
  for (const bool zeros : {false, true}) {
    PackedWeight first = random_packed(32, 256, 4, 3, zeros), second = random_packed(50, 256, 4, 3, zeros);
    const at::Tensor above = dequantize_rows(first, 0, 32, at::kFloat),
                     below = dequantize_rows(second, 0, 50, at::kFloat);
    const auto joined = join_rows({&first, &second});
    ASSERT_TRUE(joined);
    EXPECT_TRUE(dequantize_rows(*joined, 0, 82, at::kFloat).equal(at::cat({above, below})));
    EXPECT_TRUE(dequantize_rows(second, 0, 50, at::kFloat).equal(below));
    EXPECT_TRUE(second.words.is_alias_of(joined->words)) << "no second copy";
    PackedWeight uneven = random_packed(20, 256, 4, 3, zeros), last = random_packed(16, 256, 4, 3, zeros),
                 other = random_packed(16, 256, 4, 2, zeros);
    EXPECT_FALSE(join_rows({&uneven, &last})) << "20 rows are not whole bricks";
    EXPECT_FALSE(join_rows({&last, &other})) << "other bits";
  }
}

TEST(StepEnds, Begin) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) expect_step_begins(at::kCPU, dtype);
}

TEST(StepEnds, MostLikely) { expect_most_likely(at::kCPU); }

}  // namespace
}  // namespace satin::ops
