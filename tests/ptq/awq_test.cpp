// AWQ-style scaling: the block computes the same in full precision, and rounding costs less.
#include "ptq/awq.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ptq/moments.h"
#include "ptq_model.h"
#include "support/test_support.h"

namespace satin::ptq {
namespace {

TEST(Awq, ScalingIsExactInFullPrecision) {
  for (const bool grouped : {true, false}) {
    const PtqModel model(at::kDouble, grouped);
    const at::NoGradGuard no_grad;
    model.registry.enable(false);
    const Blocks blocks(*model.decoder, model.text, 4, false);
    const at::Tensor stream = blocks.embed();
    const auto linears = model.linears(0);
    std::map<const quant::QuantLinear*, at::Tensor> moments;
    at::Tensor before;
    {
      const InputMoments seen(linears);
      before = blocks.advance(0, stream);
      for (const auto* linear : linears) moments[linear] = seen.of(*linear);
    }
    const auto inputs = scaled_inputs(*model.decoder, 0, linears, moments);
    EXPECT_EQ(inputs.size(), grouped ? 3u : 4u);
    for (const ScaledInput& input : inputs) apply_factor(input, at::rand({input.moments.size(0)}, at::kDouble) + 0.5);
    EXPECT_TRUE(at::allclose(blocks.advance(0, stream), before, 1e-9, 1e-11));
  }
}

TEST(Awq, ProtectsLargeInputs) {
  const PtqModel model(at::kFloat);
  const at::NoGradGuard no_grad;
  auto linears = model.linears(0);
  linears.resize(1);
  at::manual_seed(9);
  const at::Tensor x = at::randn({300, 16}) *
                       at::tensor({30., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 20., 1., 1., 1., 1.}).to(at::kFloat);
  const ScaledInput input{linears, at::mm(x.t(), x) / 300, {}};
  const at::Tensor factor = best_factor(input);
  EXPECT_GT(factor[0].item<double>(), 1.5 * factor[1].item<double>());
  EXPECT_NEAR((factor.max() * factor.min()).item<double>(), 1, 1e-5);
  // No candidate does better: the search is over 21 powers, of which 0 is plain rounding.
  const at::Tensor weight = linears[0]->master_weight().detach().clone();
  const auto error = [&](const at::Tensor& f) {
    const at::Tensor scaled = weight * f;
    const auto state = quant::initial_state(scaled, linears[0]->scheme());
    const at::Tensor rounded = ops::fake_quant(scaled, state.scale, state.zero_point, linears[0]->grid(), at::kFloat);
    return fidelity(weight, rounded / f, input.moments, {}).error;
  };
  EXPECT_LT(error(factor), 0.9 * error(at::ones({16})));
}

}  // namespace
}  // namespace satin::ptq
