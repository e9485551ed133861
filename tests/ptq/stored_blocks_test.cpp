// Finished blocks on the disk: what was saved comes back bit for bit, and belongs to one configuration.
#include "ptq/stored_blocks.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>

#include "core/error.h"
#include "ptq_model.h"
#include "support/test_support.h"

namespace satin::ptq {
namespace {

TEST(StoredBlocks, ComeBackBitForBit) {
  const test::TempDir dir;
  const PtqModel model;
  const StoredBlocks stored(dir / "ptq", "a: 1\nb: 2\n");
  EXPECT_FALSE(stored.has_block(0));
  std::map<std::string, at::Tensor> before;
  for (const auto& parameter : model.decoder->parameters().all())
    before[parameter.name] = parameter.value.detach().clone();
  stored.save_block(1, *model.decoder);
  EXPECT_TRUE(stored.has_block(1));
  {
    const at::NoGradGuard no_grad;
    for (const auto& parameter : model.decoder->parameters().all()) at::Tensor(parameter.value).zero_();
  }
  StoredBlocks(dir / "ptq", "a: 1\nb: 2\n").load_block(1, *model.decoder);
  for (const auto& parameter : model.decoder->parameters().all()) {
    const bool of_block = nn::block_of(parameter.name) == 1;
    EXPECT_TRUE(at::equal(parameter.value, of_block ? before[parameter.name] : at::zeros_like(parameter.value)))
        << parameter.name;
  }
  stored.save_gradients(0, {{{"x", at::eye(3)}}, at::ones({1, 2, 3}), at::zeros({1, 2, 3})});
  EXPECT_TRUE(stored.has_gradients(1));
  EXPECT_FALSE(stored.has_gradients(2));
  const BlockGradients gradients = stored.load_gradients(0);
  EXPECT_TRUE(at::equal(gradients.moments.at("x"), at::eye(3)));
  EXPECT_TRUE(at::equal(gradients.at_input, at::ones({1, 2, 3})));
  stored.remove();
  EXPECT_FALSE(std::filesystem::exists(dir / "ptq"));
}

TEST(StoredBlocks, OfAnotherConfigurationAreRefused) {
  const test::TempDir dir;
  const StoredBlocks stored(dir / "ptq", "a: 1\nb: 2\n");
  try {
    const StoredBlocks other(dir / "ptq", "a: 1\nb: 3\n");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("'b: 2', now 'b: 3'"));
  }
}

}  // namespace
}  // namespace satin::ptq
