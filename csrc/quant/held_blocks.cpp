#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "core/error.h"
#include "nn/tensor_memory.h"
#include "quant/held_weights.h"

namespace satin::quant {
namespace {

void add_to(at::Tensor& sum, const at::Tensor& latest) {
  if (!sum.defined()) {
    sum = latest;
    return;
  }
  if (sum.scalar_type() == at::kBFloat16) sum = sum.to(at::kFloat);
  sum.add_(latest);
}

}  // namespace

void HeldWeights::make_blocks() {
  for (Batch& batch : batches_)
    for (Layer& layer : batch.layers) {
      blocks_[nn::block_of(layer.linear->name())].layers.push_back(&layer);
      if (!layer.linear->is_split()) layer.held = at::Tensor(layer.own).requires_grad_(trainable_);
    }
  for (auto& [index, block] : blocks_) {
    const bool split = std::any_of(block.layers.begin(), block.layers.end(),
                                   [](const Layer* layer) { return layer->linear->is_split(); });
    block.here = !split;
    if (!split) continue;
    for (Layer* layer : block.layers) {
      if (!layer->linear->is_split()) continue;
      std::vector<int64_t> shape = layer->own.sizes().vec();
      shape[0] = layer->linear->out_features();
      layer->held = at::empty(shape, layer->own.options());
      nn::drop_memory(layer->held);
      layer->held.requires_grad_(trainable_);
    }
    if (index < 0 || !sharing_.gathers_blocks) start_gather(block);
  }
  if (const auto rest = blocks_.find(-1); rest != blocks_.end()) bring(rest->second);
}

void HeldWeights::start_gather(Block& block) {
  if (block.here || block.gathering) return;
  std::vector<at::Tensor> weights, packed;
  std::vector<int64_t> rows_of_weights, rows_of_packed;
  for (const Layer* layer : block.layers) {
    if (!layer->linear->is_split()) continue;
    const int64_t num_rows = layer->linear->out_features();
    if (!layer->packed.codes.defined()) {
      weights.push_back(layer->own);
      rows_of_weights.push_back(num_rows);
      continue;
    }
    for (const at::Tensor& part : {layer->packed.codes, layer->packed.scales, layer->packed.zeros}) {
      if (!part.defined()) continue;
      packed.push_back(part);
      rows_of_packed.push_back(num_rows);
    }
  }
  block.weights = dist::RowGather(*sharing_.shards, weights, rows_of_weights);
  block.packed = dist::RowGather(*sharing_.shards, packed, rows_of_packed);
  block.gathering = true;
}

void HeldWeights::start_gather_of(int64_t block) {
  if (!sharing_.gathers_blocks) return;
  if (const auto found = blocks_.find(block); found != blocks_.end()) start_gather(found->second);
}

void HeldWeights::bring(Block& block) {
  if (block.here) return;
  start_gather(block);
  const std::vector<at::Tensor> weights = block.weights.finish(), packed = block.packed.finish();
  auto weight = weights.begin(), part = packed.begin();
  for (const Layer* layer : block.layers) {
    if (!layer->linear->is_split()) continue;
    if (!layer->packed.codes.defined()) {
      nn::move_memory(layer->held, *weight++);
      continue;
    }
    PackedRows rows{*part++, *part++, {}};
    if (layer->packed.zeros.defined()) rows.zeros = *part++;
    nn::move_memory(layer->held, unpack_rows(rows, layer->linear->grid(), layer->held.size(1),
                                             layer->linear->master_weight().scalar_type(), layer->held.scalar_type()));
  }
  block.gathering = false;
  block.here = true;
}

void HeldWeights::release(Block& block) {
  bool dropped = false;
  for (const Layer* layer : block.layers) {
    if (!layer->linear->is_split()) continue;
    nn::drop_memory(layer->held);
    dropped = true;
  }
  if (dropped) block.here = false;
}

void HeldWeights::bring_all() {
  for (auto& [index, block] : blocks_) bring(block);
}

void HeldWeights::before_forward(int64_t block) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  bring(found->second);
  start_gather_of(block + 1);
}

void HeldWeights::after_forward(int64_t block) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end() || !sharing_.gathers_blocks) return;
  const bool backward_follows = trainable_ && at::GradMode::is_enabled() && !blocks_.contains(block + 1);
  if (!backward_follows) release(found->second);
}

void HeldWeights::before_backward(int64_t block) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  bring(found->second);
  if (block > 0) start_gather_of(block - 1);
}

void HeldWeights::after_backward(int64_t block) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  if (reducing_) {
    start_reduce(found->second);
    // Its sum had this block's backward to come, and now its copies go; sums that yield are in place, and have until
    // the fold.
    const bool in_place = !sharing_.is_split() && sharing_.world->yields();
    if (const auto after = blocks_.find(block + 1); !in_place && after != blocks_.end()) finish_reduces(after->second);
  }
  if (sharing_.gathers_blocks) release(found->second);
}

void HeldWeights::begin_micro_batch(bool last) {
  reducing_ = sharing_.world->size() > 1 && (last || sharing_.reduces_each_micro_batch);
  for (auto& [index, block] : blocks_) {
    finish_reduces(block);  // of the micro-batch before
    block.reduced = false;
  }
}

void HeldWeights::start_reduce(Block& block) {
  const at::NoGradGuard no_grad;
  if (block.reduced) return;
  block.reduced = true;
  for (const bool split : {true, false}) {
    std::map<at::ScalarType, std::pair<std::vector<Layer*>, std::vector<at::Tensor>>> lists;
    for (Layer* layer : block.layers) {
      if (layer->linear->is_split() != split) continue;
      at::Tensor gradient = std::exchange(layer->held.mutable_grad(), at::Tensor());
      if (!gradient.defined()) continue;
      if (!sharing_.reduces_each_micro_batch) {  // all of the step's, at once
        add_to(layer->gradient, gradient);
        gradient = std::exchange(layer->gradient, at::Tensor());
      }
      auto& [layers, gradients] = lists[gradient.scalar_type()];
      layers.push_back(layer);
      gradients.push_back(gradient);
    }
    for (auto& [dtype, list] : lists)
      block.reduces.emplace_back(std::move(list.first), dist::GradientReduce(sharing_, list.second, split));
  }
}

void HeldWeights::finish_reduces(Block& block) {
  const at::NoGradGuard no_grad;
  for (auto& [layers, reduce] : block.reduces) {
    const std::vector<at::Tensor> sums = reduce.finish();
    for (size_t i = 0; i < layers.size(); ++i) add_to(layers[i]->gradient, sums[i]);
  }
  block.reduces.clear();
}

void HeldWeights::collect() {
  const at::NoGradGuard no_grad;
  for (auto& [index, block] : blocks_) {
    if (reducing_) {
      start_reduce(block);  // where no pass has told of it
      continue;
    }
    for (Layer* layer : block.layers)
      if (at::Tensor latest = std::exchange(layer->held.mutable_grad(), at::Tensor()); latest.defined())
        add_to(layer->gradient, latest);
  }
}

}  // namespace satin::quant
