// Curvature of the loss against autograd sequence by sequence, and against the Hessian's diagonal by finite
// differences.
#include "train/layer_curvature.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "ptq/ptq_model.h"
#include "quant/codes.h"
#include "support/test_support.h"

namespace satin::train {
namespace {

/// The mean over sequences of their mean cross-entropies.
at::Tensor loss_of(const ptq::PtqModel& model, const at::Tensor& tokens) {
  const at::Tensor log_p = at::log_softmax(model.decoder->logits(model.decoder->hidden(tokens)), -1);
  const int64_t scored = tokens.size(1) - 1;
  return -log_p.narrow(1, 0, scored).gather(2, tokens.narrow(1, 1, scored).unsqueeze(2)).mean();
}

TEST(Curvature, FisherIsTheMeanOfSquaredGradients) {
  const ptq::PtqModel model;
  const Curvature found = fisher_curvature(*model.decoder, model.registry, model.text.tokens);
  ASSERT_EQ(found.size(), 14u);
  const at::AutoGradMode enable_grad(true);
  model.registry.enable(false);
  for (const auto& [linear, values] : found) {
    at::Tensor wanted = at::zeros_like(linear->master_weight());
    for (int64_t i = 0; i < 4; ++i) {
      const at::Tensor f = loss_of(model, model.text.tokens.narrow(0, i, 1));
      wanted = wanted + torch::autograd::grad({f}, {linear->master_weight()})[0].square() / 4;
    }
    EXPECT_TRUE(at::allclose(values, wanted.detach(), 1e-9, 1e-20)) << linear->name();
  }
}

/// A probe of signs v gives v_l (H v)_l for each linear l: a mixed difference of the loss along v and along v_l, with
/// the signs that the seed gives. Its mean is the trace, as v_i v_j is 0 on average and v_i^2 is 1.
TEST(Curvature, AProbeIsTheLosssMixedDifference) {
  const ptq::PtqModel model;
  const at::NoGradGuard no_grad;
  const Curvature found = hessian_curvature(*model.decoder, model.registry, model.text.tokens, 3, /*probes=*/1, 5);
  model.registry.enable(false);
  std::vector<const quant::QuantLinear*> linears;
  for (const auto& module : model.registry.modules())
    if (found.contains(module.linear)) linears.push_back(module.linear);
  ASSERT_EQ(linears.size(), 14u);
  at::manual_seed(5);
  std::vector<at::Tensor> signs;
  for (const auto* linear : linears)
    signs.push_back(at::empty_like(linear->master_weight().detach()).bernoulli_(0.5).mul_(2).sub_(1));
  const double h = 1e-4, k = 1e-3;
  std::vector<double> wanted, found_traces;
  for (size_t l = 0; l < linears.size(); ++l) {
    double difference = 0;
    for (const double a : {1., -1.})
      for (const double b : {1., -1.}) {
        const auto move = [&](double direction) {
          for (size_t i = 0; i < linears.size(); ++i)
            linears[i]->master_weight().detach().add_(signs[i], direction * (a * h + (i == l ? b * k : 0)));
        };
        move(1);
        difference += a * b * loss_of(model, model.text.tokens).item<double>();
        move(-1);
      }
    wanted.push_back(difference / (4 * h * k));
    found_traces.push_back(found.at(linears[l]).item<double>() * static_cast<double>(signs[l].numel()));
  }
  const double largest = *std::ranges::max_element(wanted);
  size_t well_above = 0;
  for (size_t l = 0; l < linears.size(); ++l) {
    EXPECT_NEAR(found_traces[l], std::max(0.0, wanted[l]), 3e-3 * largest) << linears[l]->name();
    well_above += wanted[l] > 3e-2 * largest;
  }
  EXPECT_GE(well_above, 2u);
}

TEST(Curvature, CostIsTheWeighedSquaredError) {
  const ptq::PtqModel model;
  const at::NoGradGuard no_grad;
  const auto layer = model.registry.in_block(0);
  Curvature curvature;
  double wanted = 0;
  for (const auto* module : layer) {
    const at::Tensor weight = module->linear->master_weight().detach();
    curvature[module->linear] = at::full_like(weight, 3);
    wanted += 1.5 * (module->linear->weight(at::kDouble) - weight).square().sum().item<double>();
  }
  EXPECT_NEAR(rounding_cost(curvature, layer), wanted, 1e-6 * wanted);
  for (auto& [linear, value] : curvature) value = at::full({}, 3, value.options());
  EXPECT_NEAR(rounding_cost(curvature, layer), wanted, 1e-6 * wanted);
}

}  // namespace
}  // namespace satin::train
