// Steps in place, as a GPU's graph records them, beside a cache that grows: here on the CPU, in double.
#include "generate/continuation.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "models/tiny_model.h"

namespace satin::generate {
namespace {

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).norm() / expected.norm()).item<double>();
}

const std::vector<std::vector<int32_t>> kPrompts = {{3, 1, 4, 1, 5}, {9}, {2, 6, 5, 3, 5, 8, 9, 7, 9}};

void expect_the_same(models::Decoder& decoder) {
  const at::NoGradGuard no_grad;
  const Begun growing = begin(decoder, kPrompts, 8), in_place = begin(decoder, kPrompts, 8, /*in_place=*/true);
  EXPECT_TRUE(in_place.logits.equal(growing.logits));
  at::Tensor ids = at::tensor({7, 30, 0}, at::kLong);
  for (int step = 0; step < 8; ++step) {
    SCOPED_TRACE(step);
    const at::Tensor expected = growing.rest->next(ids), found = in_place.rest->next(ids);
    ASSERT_EQ(found.sizes(), expected.sizes());
    EXPECT_LT(relative_error(found, expected), 1e-12);
    ids = (ids * 3 + 5).remainder(31);
    if (step == 2 || step == 5) {  // the second ends, then the first of those left
      const std::vector<int64_t> kept = step == 2 ? std::vector<int64_t>{0, 2} : std::vector<int64_t>{1};
      for (Continuation* one : {growing.rest.get(), in_place.rest.get()}) one->keep(kept);
      ids = ids.index_select(0, at::tensor(kept, at::kLong));
    }
  }
}

TEST(Continuation, IsTheSameInPlace) {
  for (const bool tied : {false, true})
    for (const bool plain : {false, true}) {
      SCOPED_TRACE(testing::Message() << tied << ' ' << plain);
      models::ModelConfig config = models::tiny_config();
      config.tied_embeddings = tied;
      if (plain) config.qkv_bias = config.output_bias = config.mlp_bias = config.qk_norm = false;
      models::Decoder decoder(config, nn::dense_linear_factory(),
                              {.master_dtype = at::kDouble, .compute_dtype = at::kDouble});
      models::randomise(decoder);
      ASSERT_TRUE(decoder.can_step());
      expect_the_same(decoder);
      for (const auto format : {ops::ActivationFormat::kInt8, ops::ActivationFormat::kInt4}) {
        decoder.store_keys_and_values_as(format);
        expect_the_same(decoder);
      }
    }
}

}  // namespace
}  // namespace satin::generate
