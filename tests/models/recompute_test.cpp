// Blocks that are computed again in the backward: the same values and gradients to the bit, of fewer kept tensors.
#include "models/recompute.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "models/tiny_model.h"

namespace satin::models {
namespace {

struct Passed {
  at::Tensor output;
  std::map<std::string, at::Tensor> gradients;
};

Passed pass(Decoder& decoder, const at::Tensor& tokens, bool recompute, BlockObserver observer = {}) {
  for (const nn::Parameter& parameter : decoder.parameters().all()) parameter.value.mutable_grad() = at::Tensor();
  decoder.observe_blocks(std::move(observer));
  Passed passed{decoder.hidden(tokens, {.recompute = recompute}), {}};
  const at::Tensor gradient =
      at::linspace(-1, 1, passed.output.numel(), passed.output.options()).view_as(passed.output);
  torch::autograd::backward({passed.output}, {gradient});
  for (const nn::Parameter& parameter : decoder.parameters().all())
    passed.gradients[parameter.name] = parameter.value.grad();
  return passed;
}

TEST(Recompute, GivesTheSameBits) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const nn::BuildOptions options{.master_dtype = dtype, .compute_dtype = dtype, .trainable = true};
    Decoder decoder(tiny_config(), nn::dense_linear_factory(), options);
    randomise(decoder);
    const at::Tensor tokens = random_tokens(2, 9);
    const Passed kept = pass(decoder, tokens, false), again = pass(decoder, tokens, true);
    EXPECT_TRUE(at::equal(kept.output, again.output));
    for (const auto& [name, gradient] : kept.gradients) {
      const at::Tensor& found = again.gradients.at(name);
      ASSERT_EQ(gradient.defined(), found.defined()) << name;
      EXPECT_TRUE(!gradient.defined() || at::equal(gradient, found)) << name;
    }
  }
}

/// A block's weights are asked for between "before its backward" and "after its backward".
TEST(Recompute, TellsOfItsBackwardFirst) {
  const nn::BuildOptions options{.master_dtype = at::kDouble, .compute_dtype = at::kDouble, .trainable = true};
  const ModelConfig config = tiny_config();
  Decoder decoder(config, nn::dense_linear_factory(), options);
  randomise(decoder);
  std::vector<std::pair<BlockEvent, int64_t>> plain, events;
  pass(decoder, random_tokens(1, 5), false, [&](BlockEvent event, int64_t block) { plain.emplace_back(event, block); });
  pass(decoder, random_tokens(1, 5), true, [&](BlockEvent event, int64_t block) {
    events.emplace_back(event, block);
    const std::string weight = "model.layers." + std::to_string(block) + ".mlp.down_proj.weight";
    const bool has_gradient = decoder.parameters().at(weight).grad().defined();
    EXPECT_EQ(has_gradient, event == BlockEvent::kAfterBackward);
  });
  EXPECT_EQ(events, plain);
}

/// Of a block of y = sin(sin(... sin(x))) only x is kept: the others' memory is free when the forward has ended.
TEST(Recompute, KeepsTheInputAlone) {
  std::vector<c10::weak_intrusive_ptr<c10::TensorImpl>> inner;
  int runs = 0;
  const auto block = [&](const Stream& stream) {
    ++runs;
    at::Tensor y = stream.first;
    for (int i = 0; i < 4; ++i) {
      y = y.sin();
      inner.emplace_back(y.getIntrusivePtr());
    }
    return Stream{y.exp(), y * stream.second};
  };
  const at::Tensor x = at::rand({5}, at::kDouble).requires_grad_(), delta = at::rand({5}, at::kDouble).requires_grad_();
  const Stream output = recomputed({x, delta}, block);
  EXPECT_EQ(runs, 1);
  for (const auto& tensor : inner) EXPECT_TRUE(tensor.expired());
  torch::autograd::backward({output.first.sum() + output.second.sum()});
  EXPECT_EQ(runs, 2);
  const at::Tensor found_x = x.grad().clone(), found_delta = delta.grad().clone();
  x.mutable_grad() = delta.mutable_grad() = at::Tensor();
  const Stream direct = block({x, delta});
  torch::autograd::backward({direct.first.sum() + direct.second.sum()});
  EXPECT_TRUE(at::equal(x.grad(), found_x));
  EXPECT_TRUE(at::equal(delta.grad(), found_delta));

  const at::NoGradGuard no_grad;
  recomputed({x, delta}, block);
  EXPECT_EQ(runs, 4);
}

/// The last block's second output may be unused, and a first block has no second input.
TEST(Recompute, TakesWhatIsThere) {
  const at::Tensor x = at::rand({3}, at::kDouble).requires_grad_();
  const Stream output = recomputed({x, {}}, [](const Stream& stream) {
    return Stream{stream.first * 2, stream.first * 3};
  });
  torch::autograd::backward({output.first.sum()});
  EXPECT_TRUE(at::equal(x.grad(), at::full({3}, 2, at::kDouble)));
}

}  // namespace
}  // namespace satin::models
