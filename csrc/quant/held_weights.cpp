#include "quant/held_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "nn/gradient.h"
#include "quant/column_limits.h"
#include "quant/low_bit_matmul.h"

namespace satin::quant {
namespace {

bool same_kernel(const ops::FakeQuantGrid& a, const ops::FakeQuantGrid& b) {
  return a.kind == b.kind && a.bits == b.bits && a.scale_rounding == b.scale_rounding &&
         a.dequant_rounding == b.dequant_rounding;
}

}  // namespace

HeldWeights::HeldWeights(const Registry& registry, at::ScalarType dtype, bool trainable, const dist::Sharing& sharing)
    : sharing_(sharing), trainable_(trainable), low_bit_(trainable && registry.low_bit_products()) {
  add_layers(registry, dtype);
  const at::NoGradGuard no_grad;
  for (Batch& batch : batches_) quantize(batch);
  make_blocks();
  for (Batch& batch : batches_)  // last, where nothing can fail: no layer keeps a weight that nobody takes back
    for (Layer& layer : batch.layers) layer.linear->hold(layer.held, std::move(layer.product));
}

void HeldWeights::add_layers(const Registry& registry, at::ScalarType dtype) {
  for (const QuantizedModule& module : registry.modules()) {
    const bool quantized = module.linear->enabled();
    if (!quantized && !module.linear->is_split()) continue;
    // The head's weight is asked for in fp32 too (nn::Linear::weight), and a split layer has one weight for all.
    const bool wide = module.linear->is_split() && nn::block_of(module.name) < 0;
    const at::ScalarType held = wide ? nn::statistics_dtype(dtype) : dtype;
    const ops::FakeQuantGrid& grid = module.linear->grid();
    auto batch = std::find_if(batches_.begin(), batches_.end(), [&](const Batch& known) {
      return known.quantized == quantized && known.dtype == held && (!quantized || same_kernel(known.grid, grid));
    });
    if (batch == batches_.end()) batch = batches_.insert(batch, {quantized, grid, held, {}});
    QuantizerState state;
    if (!module.linear->scheme().reads_data() || module.linear->scheme().per_tensor()) state = module.linear->state();
    batch->layers.push_back({.linear = module.linear, .state = state});
  }
}

void HeldWeights::quantize(Batch& batch) {
  if (!batch.quantized) {
    for (Layer& layer : batch.layers) layer.own = layer.linear->master_weight().detach().to(batch.dtype);
    return;
  }
  read_data_scales(batch);
  std::vector<const Layer*> all;
  for (const Layer& layer : batch.layers) all.push_back(&layer);
  const std::vector<at::Tensor> quantized = ops::fake_quant_many(inputs(batch, all), batch.dtype);
  for (size_t i = 0; i < quantized.size(); ++i) {
    Layer& layer = batch.layers[i];
    layer.own = quantized[i];
    if (sharing_.gathers_codes && layer.linear->is_split()) {
      const LimitedWeight now = limited(layer.linear->master_weight(), layer.state, layer.linear->scheme());
      layer.packed = pack_rows(now.weight.detach(), now.state.scale.detach(),
                               now.state.zero_point.defined() ? now.state.zero_point.detach() : at::Tensor(),
                               layer.linear->grid());
    }
  }
  if (low_bit_) pack_products(batch);
}

void HeldWeights::pack_products(Batch& batch) const {
  for (Layer& layer : batch.layers) {
    const QuantLinear& linear = *layer.linear;
    if (linear.scheme().activations != Activations::kInt8) continue;
    const std::string why_not = reason_against_low_bit(linear, batch.dtype);
    say_low_bit_once(linear.scheme(), why_not);
    if (why_not.empty())
      layer.product = pack_for_product(linear.master_weight().detach(), layer.state, linear.scheme());
  }
}

void HeldWeights::read_data_scales(Batch& batch) {
  ops::FakeQuantBatch in;
  in.grid = batch.grid;
  std::vector<Layer*> layers;
  for (Layer& layer : batch.layers) {
    if (layer.state.scale.defined()) continue;
    layers.push_back(&layer);
    in.weights.push_back(layer.linear->master_weight().detach());
    in.group_sizes.push_back(layer.linear->grid().group_size);
  }
  if (layers.empty()) return;
  const ops::DataScales found = ops::data_scale_many(in);
  for (size_t i = 0; i < layers.size(); ++i)
    layers[i]->state = {found.scales[i], found.zero_points.empty() ? at::Tensor() : found.zero_points[i]};
}

HeldWeights::~HeldWeights() {
  for (Batch& batch : batches_)
    for (Layer& layer : batch.layers) layer.linear->hold({});
}

ops::FakeQuantBatch HeldWeights::inputs(const Batch& batch, const std::vector<const Layer*>& layers) {
  ops::FakeQuantBatch in;
  in.grid = batch.grid;
  for (const Layer* layer : layers) {
    const LimitedWeight now = limited(layer->linear->master_weight(), layer->state, layer->linear->scheme());
    in.weights.push_back(now.weight.detach());
    in.scales.push_back(now.state.scale.detach());
    if (now.state.zero_point.defined()) in.zero_points.push_back(now.state.zero_point.detach());
    in.group_sizes.push_back(layer->linear->grid().group_size);
  }
  return in;
}

void HeldWeights::fold(double damping) {
  const at::NoGradGuard no_grad;
  for (Batch& batch : batches_)
    for (size_t end = batch.layers.size(), begin = 0; end > 0; end = begin) {
      begin = end - std::min(end, size_t{kLayersAFold});
      for (size_t i = begin; i < end; ++i) finish_reduces(blocks_.at(nn::block_of(batch.layers[i].linear->name())));
      fold_slice(batch, begin, end, damping);
    }
}

void HeldWeights::fold_slice(Batch& batch, size_t begin, size_t end, double damping) {
  std::vector<const Layer*> used;
  std::vector<at::Tensor> gradients;
  for (size_t i = begin; i < end; ++i) {
    Layer& layer = batch.layers[i];
    if (!layer.gradient.defined()) continue;
    used.push_back(&layer);
    gradients.push_back(std::move(layer.gradient));
    layer.gradient = at::Tensor();
  }
  if (used.empty()) return;
  if (!batch.quantized) {
    for (size_t i = 0; i < used.size(); ++i) {
      const at::Tensor& master = used[i]->linear->master_weight();
      nn::add_gradient(master, gradients[i].to(master.scalar_type()));
    }
    return;
  }
  const ops::FakeQuantGradientsBatch found = ops::fake_quant_backward_many(gradients, inputs(batch, used));
  std::vector<at::Tensor> states, state_gradients;  // functions of the learned parameters, or these themselves
  for (size_t i = 0; i < used.size(); ++i) {
    const Layer& layer = *used[i];
    const at::Tensor& master = layer.linear->master_weight();
    const ops::FakeQuantGradients back = through_limits(
        master, layer.state, layer.linear->scheme(),
        {found.weights[i], found.scales[i], found.zero_points.empty() ? at::Tensor() : found.zero_points[i]});
    at::Tensor gradient = back.weight;
    if (damping > 0) gradient.addcmul_(master - layer.own, gradient.ne(0).to(master.scalar_type()), 2 * damping);
    nn::add_gradient(master, gradient);
    const auto add_state = [&](const at::Tensor& state, const at::Tensor& of_state) {
      if (!state.requires_grad()) return;
      if (state.is_leaf()) return nn::add_gradient(state, of_state);
      states.push_back(state);
      state_gradients.push_back(of_state);
    };
    add_state(layer.state.scale, back.scale);
    if (back.zero_point.defined()) add_state(layer.state.zero_point, back.zero_point);
  }
  if (!states.empty()) torch::autograd::backward(states, state_gradients);
}

}  // namespace satin::quant
