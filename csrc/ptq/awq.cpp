#include "ptq/awq.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "quant/column_limits.h"

namespace satin::ptq {
namespace {

constexpr int kSteps = 20;

quant::QuantLinear* find(const std::vector<quant::QuantLinear*>& linears, const std::string& name) {
  for (quant::QuantLinear* linear : linears)
    if (linear->name() == name) return linear;
  return nullptr;
}

/// |(Q(W f) / f - W) x|^2, mean over rows of x.
at::Tensor error_with(const quant::QuantLinear& linear, const at::Tensor& factor, const at::Tensor& moments) {
  const at::Tensor weight = linear.master_weight().detach();
  const at::Tensor importance = (moments.diagonal() / factor.square()).contiguous();
  const at::Tensor scaled = weight * factor.to(weight.scalar_type());
  const quant::QuantizerState state = quant::initial_state(scaled, linear.scheme(), importance);
  const at::Tensor rounded = quant::fake_quantized(scaled, state, linear.scheme(), scaled.scalar_type());
  const at::Tensor error = (rounded / factor - weight).to(moments.scalar_type());
  return at::mm(error, moments).mul_(error).sum();
}

}  // namespace

std::vector<ScaledInput> scaled_inputs(const models::Decoder& decoder, int64_t block,
                                       const std::vector<quant::QuantLinear*>& linears,
                                       const std::map<const quant::QuantLinear*, at::Tensor>& moments) {
  const std::string layer = cat("model.layers.", block, ".");
  const auto parameter = [&](const std::string& name) {
    const nn::Parameter* found = decoder.parameters().find(layer + name);
    return found ? found->value.detach() : at::Tensor();
  };
  std::vector<ScaledInput> inputs;
  // All that read the tensor must be scaled: a dense one among them would see the divided input.
  const auto add = [&](const std::vector<std::string>& readers, const std::vector<std::string>& makers) {
    ScaledInput input;
    for (const std::string& name : readers) {
      quant::QuantLinear* linear = find(linears, layer + name);
      if (!linear || linear->scheme().per_tensor()) return;
      input.readers.push_back(linear);
      input.moments = moments.at(linear);
    }
    for (const std::string& name : makers)
      if (const at::Tensor value = parameter(name); value.defined()) input.makers.push_back(value);
    inputs.push_back(std::move(input));
  };
  const models::ModelConfig& config = decoder.config();
  add({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}, {"input_layernorm.weight"});
  if (config.num_heads == config.num_kv_heads)
    add({"self_attn.o_proj"}, {"self_attn.v_proj.weight", "self_attn.v_proj.bias"});
  add({"mlp.gate_proj", "mlp.up_proj"}, {"post_attention_layernorm.weight"});
  add({"mlp.down_proj"}, {"mlp.up_proj.weight", "mlp.up_proj.bias"});
  return inputs;
}

at::Tensor best_factor(const ScaledInput& input) {
  const at::NoGradGuard no_grad;
  const at::Tensor sizes = input.moments.diagonal().sqrt().clamp_min(1e-4);
  at::Tensor best, least;
  for (int step = 0; step <= kSteps; ++step) {
    at::Tensor factor = sizes.pow(static_cast<double>(step) / kSteps).clamp_min(1e-4);
    factor = factor / (factor.max() * factor.min()).sqrt();
    at::Tensor error = at::zeros({}, factor.options());
    for (const quant::QuantLinear* reader : input.readers) error = error + error_with(*reader, factor, input.moments);
    if (step == 0) {
      best = factor;
      least = error;
      continue;
    }
    const at::Tensor better = error < least;
    least = at::where(better, error, least);
    best = at::where(better, factor, best);
  }
  return best;
}

void apply_factor(const ScaledInput& input, const at::Tensor& factor) {
  const at::NoGradGuard no_grad;
  for (quant::QuantLinear* reader : input.readers)
    at::Tensor(reader->master_weight()).mul_(factor.to(reader->master_weight().scalar_type()));
  for (const at::Tensor& maker : input.makers) {
    std::vector<int64_t> shape(static_cast<size_t>(maker.dim()), 1);
    shape[0] = factor.numel();
    at::Tensor(maker).div_(factor.view(shape).to(maker.scalar_type()));
  }
}

}  // namespace satin::ptq
