#include "train/layer_curvature.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "ptq/gradient_pass.h"
#include "ptq/quantize_blocks.h"
#include "quant/codes.h"

namespace satin::train {
namespace {

constexpr double kRelativeStep = 1e-3;  // of the central difference, over the weights' root mean square

std::vector<const quant::QuantLinear*> linears_of(const models::Decoder& decoder, const quant::Registry& registry) {
  std::vector<const quant::QuantLinear*> found;
  for (const auto& block : ptq::linears_of_blocks(registry, decoder.config().num_layers))
    found.insert(found.end(), block.begin(), block.end());
  return found;
}

/// df/dW of each, f summed over the sequences.
std::vector<at::Tensor> gradients(models::Decoder& decoder, const std::vector<const quant::QuantLinear*>& linears,
                                  const at::Tensor& tokens) {
  if (const int signal = interrupt_signal()) throw InterruptedError(cat("stopped by signal ", signal));
  const at::AutoGradMode enable_grad(true);
  std::vector<at::Tensor> weights;
  for (const auto* linear : linears) weights.push_back(linear->master_weight());
  const at::Tensor hidden = decoder.hidden(tokens);
  at::Tensor scored = at::ones(tokens.sizes(), at::kBool);
  scored.select(1, tokens.size(1) - 1).fill_(false);
  return torch::autograd::grad({hidden}, weights, {ptq::gradient_of_hidden(decoder, hidden.detach(), tokens, scored)});
}

}  // namespace

Curvature fisher_curvature(models::Decoder& decoder, const quant::Registry& registry, const at::Tensor& tokens) {
  registry.enable(false);
  const auto linears = linears_of(decoder, registry);
  std::vector<at::Tensor> squares;
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    const auto found = gradients(decoder, linears, tokens.narrow(0, i, 1));
    for (size_t j = 0; j < found.size(); ++j)
      if (i == 0)
        squares.push_back(found[j].square());
      else
        squares[j].addcmul_(found[j], found[j]);
    progress(cat("squared gradients: sequence ", i + 1, " of ", tokens.size(0)));
  }
  end_progress();
  Curvature curvature;
  for (size_t j = 0; j < linears.size(); ++j)
    curvature[linears[j]] = squares[j].div_(static_cast<double>(tokens.size(0)));
  return curvature;
}

Curvature hessian_curvature(models::Decoder& decoder, const quant::Registry& registry, const at::Tensor& tokens,
                            int64_t batch_size, int64_t probes, uint64_t seed) {
  SATIN_CHECK(probes > 0 && batch_size > 0, probes, " probes, batches of ", batch_size);
  registry.enable(false);
  nn::ParameterStore& store = decoder.parameters();
  std::optional<nn::ComputeScope> scope;  // bf16 does not resolve the difference
  if (store.options().compute_dtype == at::kBFloat16) scope.emplace(store, at::kFloat);
  const auto linears = linears_of(decoder, registry);
  double squares = 0, count = 0;
  for (const auto* linear : linears) {
    squares += linear->master_weight().detach().square().sum(at::kDouble).item<double>();
    count += static_cast<double>(linear->master_weight().numel());
  }
  const double step = kRelativeStep * std::sqrt(squares / count);

  at::manual_seed(seed);
  std::vector<double> traces(linears.size(), 0);
  for (int64_t probe = 0; probe < probes; ++probe) {
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> signs, before, difference(linears.size());
    for (const auto* linear : linears) {
      const at::Tensor weight = linear->master_weight().detach();
      before.push_back(weight.clone());
      signs.push_back(at::empty_like(weight).bernoulli_(0.5).mul_(2).sub_(1));
    }
    for (const double direction : {1.0, -1.0}) {
      for (size_t j = 0; j < linears.size(); ++j)
        linears[j]->master_weight().detach().copy_(before[j].add(signs[j], direction * step));
      for (int64_t first = 0; first < tokens.size(0); first += batch_size) {
        const auto found =
            gradients(decoder, linears, tokens.narrow(0, first, std::min(batch_size, tokens.size(0) - first)));
        for (size_t j = 0; j < linears.size(); ++j)
          difference[j] = difference[j].defined() ? difference[j].add_(found[j], direction) : found[j] * direction;
      }
    }
    for (size_t j = 0; j < linears.size(); ++j) {
      linears[j]->master_weight().detach().copy_(before[j]);
      traces[j] += (signs[j] * difference[j]).sum(at::kDouble).item<double>() /
                   (2 * step * static_cast<double>(tokens.size(0) * probes));
    }
    progress(cat("traces of the Hessian: probe ", probe + 1, " of ", probes));
  }
  end_progress();
  Curvature curvature;
  for (size_t j = 0; j < linears.size(); ++j) {
    const at::Tensor& weight = linears[j]->master_weight();
    curvature[linears[j]] = at::full({}, std::max(0.0, traces[j]) / static_cast<double>(weight.numel()),
                                     weight.options().requires_grad(false));
  }
  return curvature;
}

double rounding_cost(const Curvature& curvature, const std::vector<const quant::QuantizedModule*>& layer) {
  const at::NoGradGuard no_grad;
  double cost = 0;
  for (const auto* module : layer) {
    const at::Tensor weight = module->linear->master_weight().detach();
    const at::Tensor error =
        quant::dequantize(quant::quantize_weight(*module->linear)).to(weight.scalar_type()) - weight;
    cost += (error.square_() * curvature.at(module->linear)).sum(at::kDouble).item<double>() / 2;
  }
  return cost;
}

}  // namespace satin::train
