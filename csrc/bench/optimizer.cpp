// From gradients to the next weights: norms, clipping and AdamW, beside PyTorch's kernels for the last two.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "optim/adamw.h"

namespace satin::bench {
namespace {

/// A quantized model's masters, scales of groups of 64 and norms, with gradients, in memory without numbers that
/// matter.
std::vector<nn::Parameter> parameters_of(const std::string& shape, at::Device device) {
  const models::ModelConfig c = named_shape(shape);
  const auto options = at::TensorOptions(at::kFloat).device(device);
  std::vector<nn::Parameter> parameters;
  const auto add = [&](const std::string& name, nn::Role role, at::IntArrayRef sizes) {
    at::Tensor value = at::full(sizes, 0.5, options).requires_grad_();
    value.mutable_grad() = at::full(sizes, 1e-3, options);
    parameters.push_back({name, value, role});
  };
  const int64_t of_queries = c.num_heads * c.head_dim, of_keys = c.num_kv_heads * c.head_dim;
  add("embedding", nn::Role::kEmbedding, {c.vocab_size, c.hidden_size});
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    for (const auto& [out, in] :
         {std::pair{of_queries, c.hidden_size}, std::pair{of_keys, c.hidden_size}, std::pair{of_keys, c.hidden_size},
          std::pair{c.hidden_size, of_queries}, std::pair{c.intermediate_size, c.hidden_size},
          std::pair{c.intermediate_size, c.hidden_size}, std::pair{c.hidden_size, c.intermediate_size}}) {
      add("weight", nn::Role::kWeight, {out, in});
      add("scale", nn::Role::kScale, {out, in / 64});
    }
    for (int i = 0; i < 2; ++i) add("norm", nn::Role::kNorm, {c.hidden_size});
  }
  return parameters;
}

void measure(const Options& options, const std::string& shape, double& bandwidth) {
  const std::string norms_too = cat(shape, " norms, clipping, AdamW"), update = cat(shape, " clipping, AdamW"),
                    of_torch = cat(shape, " clipping, AdamW: PyTorch's kernels");
  const auto wanted = [&](const std::string& name) { return name.find(options.only) != std::string::npos; };
  if (!wanted(norms_too) && !wanted(update) && !wanted(of_torch)) return;
  if (bandwidth == 0) bandwidth = report_copy(options);
  const at::NoGradGuard no_grad;
  const std::vector<nn::Parameter> parameters = parameters_of(shape, options.device);
  double numbers = 0;
  std::vector<at::Tensor> values, gradients, means, squares, steps;
  for (const nn::Parameter& parameter : parameters) {
    numbers += static_cast<double>(parameter.value.numel());
    values.push_back(parameter.value);
    gradients.push_back(parameter.value.grad());
  }
  const auto report = [&](const std::string& name, double bytes, const std::function<void()>& work) {
    if (!wanted(name)) return;
    Measurement m = time_calls(options.device, 1, [&](int) {
      work();
      return std::vector<at::Tensor>{};
    });
    m.name = name;
    m.floor_us = 1e6 * bytes * numbers / bandwidth;
    m.note = cat(bytes, " bytes a number");
    options.report(m);
  };
  optim::AdamW adamw(parameters, config::Optimizer{});
  const optim::GradientNorms norms = optim::gradient_norms(parameters);
  report(norms_too, 32, [&] {
    const optim::GradientNorms now = optim::gradient_norms(parameters);
    adamw.step(1e-3, optim::clip_factors(now, 1), optim::non_finite(now));
  });
  report(update, 28, [&] { adamw.step(1e-3, optim::clip_factors(norms, 1), optim::non_finite(norms)); });
  if (!wanted(of_torch)) return;
  for (const auto& [name, tensor] : adamw.state())  // its own state: three a parameter
    (name.ends_with(".step") ? steps : name.ends_with("_sq") ? squares : means).push_back(tensor);
  const at::Tensor factor = optim::clip_factors(norms, 1).model, skip = optim::non_finite(norms);
  report(of_torch, 28, [&] {
    at::_foreach_mul_(gradients, factor);
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(values, gradients, means, squares, {}, steps, 1e-6, 0.9, 0.95, 0.1, 1e-8, false, false, {}, skip);
  });
}

}  // namespace

void bench_optimizer(const Options& options) {
  double bandwidth = 0;
  measure(options, "29m", bandwidth);
  if (options.device.is_cuda()) measure(options, "1.2b", bandwidth);
}

}  // namespace satin::bench
