// Passes that tell where they stand: the same values and gradients, and every block's gradients are there when it says.
#include "models/block_boundary.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "models/tiny_model.h"

namespace satin::models {
namespace {

TEST(BlockBoundary, TellsInOrderAndChangesNothing) {
  const nn::BuildOptions options{.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true};
  const ModelConfig config = tiny_config();
  Decoder plain(config, nn::dense_linear_factory(), options), observed(config, nn::dense_linear_factory(), options);
  randomise(plain);
  const at::Tensor tokens = random_tokens(2, 9);
  std::vector<std::pair<BlockEvent, int64_t>> events;
  {
    const at::NoGradGuard no_grad;
    for (const nn::Parameter& parameter : observed.parameters().all())
      at::Tensor(parameter.value).copy_(plain.parameters().at(parameter.name));
  }
  observed.observe_blocks([&](BlockEvent event, int64_t block) {
    events.emplace_back(event, block);
    if (event != BlockEvent::kAfterBackward) return;
    for (const nn::Parameter& parameter : observed.parameters().all())
      EXPECT_TRUE(nn::block_of(parameter.name) != block || parameter.value.grad().defined()) << parameter.name;
  });
  std::vector<at::Tensor> outputs;
  for (Decoder* decoder : {&plain, &observed}) {
    outputs.push_back(decoder->hidden(tokens));
    torch::autograd::backward({outputs.back()}, {at::ones_like(outputs.back())});
  }
  EXPECT_TRUE(at::equal(outputs[0], outputs[1]));
  for (const nn::Parameter& parameter : plain.parameters().all()) {
    const at::Tensor& expected = parameter.value.grad();
    const at::Tensor found = observed.parameters().at(parameter.name).grad();
    ASSERT_EQ(expected.defined(), found.defined()) << parameter.name;
    EXPECT_TRUE(!expected.defined() || at::equal(expected, found)) << parameter.name;
  }
  using enum BlockEvent;
  std::vector<std::pair<BlockEvent, int64_t>> wanted;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    wanted.emplace_back(kBeforeForward, i);
    wanted.emplace_back(kAfterForward, i);
  }
  for (int64_t i = config.num_layers - 1; i >= 0; --i) {
    wanted.emplace_back(kBeforeBackward, i);
    wanted.emplace_back(kAfterBackward, i);
  }
  EXPECT_EQ(events, wanted);

  events.clear();
  observed.observe_blocks({});
  observed.hidden(tokens);
  EXPECT_TRUE(events.empty());
}

}  // namespace
}  // namespace satin::models
