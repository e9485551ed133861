// The block loss's gradient, LGP's term included, against finite differences in double; that training lowers it.
#include "ptq/block_training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ptq/gradient_pass.h"
#include "ptq_model.h"
#include "support/test_support.h"

namespace satin::ptq {
namespace {

/// Block 1 with its targets of full precision, on inputs that are a little off.
BlockTask task_of(const PtqModel& model, const Blocks& blocks, bool with_gradients) {
  model.registry.enable(false);
  const auto gradients = collect_gradients(blocks, {model.linears(0), model.linears(1)}, 0, 2, true);
  const at::Tensor full = blocks.advance(0, blocks.embed());
  BlockTask task{1, model.linears(1), full + 0.05 * at::randn_like(full), blocks.advance(1, full), {}, {}};
  if (with_gradients) {
    task.gradients = gradients[1].at_input;
    task.output_gradients = gradients[1].at_output;
  }
  return task;
}

TEST(BlockTraining, GradientEqualsFiniteDifferencesOfBothTerms) {
  const PtqModel model;
  const Blocks blocks(*model.decoder, model.text, 4, false);
  const BlockTask task = task_of(model, blocks, true);  // layers stay in full precision: differentiable
  const BlockLoss loss = block_loss(blocks, task);
  ASSERT_GT(loss.gradients, 0);
  const double weight = loss.outputs / loss.gradients;
  for (const quant::QuantLinear* linear : model.linears(1)) {
    at::Tensor value = linear->master_weight();
    const at::AutoGradMode enable_grad(true);
    const at::Tensor gradient =
        torch::autograd::grad({block_surrogate(blocks, task, at::arange(4), weight)}, {value})[0];
    const at::NoGradGuard no_grad;
    const at::Tensor direction = at::randn_like(value);
    constexpr double kStep = 1e-5;
    const auto at_distance = [&](double distance) {
      value.add_(direction, distance);
      const double total = block_loss(blocks, task).total(weight);
      value.sub_(direction, distance);
      return total;
    };
    const double difference = (at_distance(kStep) - at_distance(-kStep)) / (2 * kStep);
    const double found = (gradient * direction).sum().item<double>();
    EXPECT_NEAR(found, difference, 1e-3 * std::abs(difference) + 1e-8) << linear->name();
  }
}

TEST(BlockTraining, LowersItsLossInEveryForm) {
  for (const bool clips : {true, false})
    for (const double ratio : {0.0, 1.0}) {
      const PtqModel model(at::kFloat);
      const Blocks blocks(*model.decoder, model.text, 4, false);
      const BlockTask task = task_of(model, blocks, ratio > 0);
      model.registry.enable(true);
      config::Ptq options;
      options.gradient_ratio = ratio;
      options.epochs = 20;
      options.batch_size = 2;
      options.weight_learning_rate = 5e-3;
      options.scale_learning_rate = 1e-3;
      options.clip_learning_rate = 3e-2;
      const BlockTraining found = train_block(blocks, task, clips, options, 0);
      EXPECT_LT(found.after.total(found.weight), 0.95 * found.before.total(found.weight)) << clips << " " << ratio;
      EXPECT_EQ(found.weight > 0, ratio > 0);
      // What layers hold is what was measured.
      const BlockLoss held = block_loss(blocks, task);
      EXPECT_NEAR(held.outputs, found.after.outputs, 1e-5 * held.outputs);
      for (const auto& parameter : model.decoder->parameters().all()) EXPECT_FALSE(parameter.value.grad().defined());
    }
}

TEST(BlockTraining, FewUpdatesGoAsFarAsThePublishedOnes) {
  EXPECT_DOUBLE_EQ(block_ap_rate(2, 4096), 2e-5);
  EXPECT_DOUBLE_EQ(block_ap_rate(3, 4096), 1e-5);
  EXPECT_DOUBLE_EQ(block_ap_rate(2, 512), 8 * 2e-5);
  EXPECT_DOUBLE_EQ(block_ap_rate(2, 8), 1e-3);
}

}  // namespace
}  // namespace satin::ptq
