// The block-by-block backward pass against autograd of the whole model.
#include "ptq/gradient_pass.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "ptq/moments.h"
#include "ptq_model.h"
#include "support/test_support.h"

namespace satin::ptq {
namespace {

TEST(GradientPass, EqualsAutogradOfTheWholeModel) {
  const PtqModel model;
  model.registry.enable(false);
  const Blocks blocks(*model.decoder, model.text, 3, false);
  const auto found = collect_gradients(blocks, {model.linears(0), model.linears(1)}, 0, 2, true);

  const at::AutoGradMode enable_grad(true);
  std::vector<at::Tensor> outputs, taps;
  std::vector<std::string> names;
  for (const auto& module : model.registry.modules())
    module.linear->watch([&, name = module.name](const at::Tensor&, const at::Tensor& y) {
      outputs.push_back(y);
      names.push_back(name);
    });
  const at::Tensor hidden =
      model.decoder->hidden(model.text.tokens, {.document_ids = model.text.document_ids, .taps = &taps});
  const at::Tensor log_p = at::log_softmax(model.decoder->logits(hidden), -1);
  const at::Tensor loss = -log_p.gather(2, model.text.tokens.roll(-1, 1).unsqueeze(2)).squeeze(2);
  at::Tensor f = at::zeros({}, loss.options());
  for (int64_t i = 0; i < 4; ++i) f = f + loss[i].masked_select(model.text.loss_mask[i]).mean();
  ASSERT_EQ(outputs.size(), 14u);
  std::vector<at::Tensor> inputs = outputs;
  inputs.insert(inputs.end(), taps.begin(), taps.end());
  const auto gradients = torch::autograd::grad({f}, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const at::Tensor g = gradients[i].reshape({-1, outputs[i].size(-1)});
    const at::Tensor wanted = at::mm(g.t(), g) / 40;
    const at::Tensor& moments = found[i / 7].moments.at(names[i]);
    EXPECT_LT((moments - wanted).abs().max().item<double>(), 1e-10 * wanted.abs().max().item<double>()) << names[i];
  }
  EXPECT_TRUE(at::allclose(found[0].at_input, gradients[14], 1e-9, 1e-14));
  EXPECT_TRUE(at::allclose(found[1].at_input, gradients[15], 1e-9, 1e-14));
  EXPECT_TRUE(at::equal(found[0].at_output, found[1].at_input));
}

TEST(GradientPass, PartsGiveTheBitsOfOnePass) {
  const PtqModel model;
  model.registry.enable(false);
  const Blocks blocks(*model.decoder, model.text, 3, false);
  const std::vector<std::vector<quant::QuantLinear*>> linears{model.linears(0), model.linears(1)};
  const auto whole = collect_gradients(blocks, linears, 0, 2, true);
  for (int64_t block = 0; block < 2; ++block) {
    const auto part = collect_gradients(blocks, linears, block, block + 1, true);
    const BlockGradients& wanted = whole[static_cast<size_t>(block)];
    ASSERT_EQ(part.size(), 1u);
    ASSERT_EQ(part[0].moments.size(), 7u);
    for (const auto& [name, moments] : part[0].moments)
      EXPECT_TRUE(at::equal(moments, wanted.moments.at(name))) << name;
    EXPECT_TRUE(at::equal(part[0].at_input, wanted.at_input));
    EXPECT_TRUE(at::equal(part[0].at_output, wanted.at_output));
  }
  int64_t elements = 0;
  for (const auto* linear : linears[0]) elements += linear->out_features() * linear->out_features();
  EXPECT_EQ(blocks_a_pass(linears, 8, 2 * 8 * elements), 2);
  EXPECT_EQ(blocks_a_pass(linears, 8, 2 * 8 * elements - 1), 1);
  EXPECT_EQ(blocks_a_pass(linears, 8, 1), 1);
}

TEST(GradientPass, BlocksGiveWhatTheWholeModelGives) {
  const PtqModel model;
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> taps;
  const at::Tensor hidden =
      model.decoder->hidden(model.text.tokens, {.document_ids = model.text.document_ids, .taps = &taps});
  const Blocks blocks(*model.decoder, model.text, 3, true);
  at::Tensor stream = blocks.embed();
  EXPECT_TRUE(at::allclose(stream, taps[0]));
  stream = blocks.advance(0, stream);
  EXPECT_TRUE(at::allclose(stream, taps[1], 1e-10, 1e-12));
  stream = blocks.advance(1, stream);
  EXPECT_TRUE(at::allclose(model.decoder->final_norm(stream), hidden, 1e-10, 1e-12));
}

TEST(Moments, AreThoseOfTheInputs) {
  const PtqModel model;
  const at::NoGradGuard no_grad;
  const Blocks blocks(*model.decoder, model.text, 3, false);
  const at::Tensor stream = blocks.embed();
  const auto linears = model.linears(0);
  std::vector<at::Tensor> wanted(linears.size());
  for (size_t i = 0; i < linears.size(); ++i)
    linears[i]->watch([&, i](const at::Tensor& x, const at::Tensor&) {
      const at::Tensor rows = x.reshape({-1, x.size(-1)});
      const at::Tensor products = at::einsum("ni,nj->ij", {rows, rows}) / 40;
      wanted[i] = wanted[i].defined() ? wanted[i] + products : products;
    });
  blocks.advance(0, stream);
  const InputMoments moments(linears);
  blocks.advance(0, stream);
  for (size_t i = 0; i < linears.size(); ++i)
    EXPECT_TRUE(at::allclose(moments.of(*linears[i]), wanted[i], 1e-10, 1e-12)) << linears[i]->name();
}

}  // namespace
}  // namespace satin::ptq
