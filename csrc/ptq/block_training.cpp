#include "ptq/block_training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "optim/adamw.h"

namespace satin::ptq {
namespace {

constexpr double kRelativeStep = 1e-3;  // of the central difference: its root mean square over the input's

/// d(df/dz . z_q)/dx, z_q of x attached to it.
at::Tensor gradient_at(const at::Tensor& output, const at::Tensor& x, const at::Tensor& output_gradient) {
  return torch::autograd::grad({output}, {x}, {output_gradient}, /*retain_graph=*/true)[0].detach();
}

at::Tensor root_mean_square(const at::Tensor& x) { return x.square().mean().sqrt(); }

/// All sequences once, `batch_size` at a time, in an order of this block and epoch.
std::vector<at::Tensor> shuffled_batches(int64_t num_sequences, int64_t batch_size, uint64_t seed, int64_t block,
                                         int64_t epoch) {
  std::vector<int64_t> order(static_cast<size_t>(num_sequences));
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int64_t i) {
    return counter_hash({seed, static_cast<uint64_t>(block), static_cast<uint64_t>(epoch), static_cast<uint64_t>(i)});
  };
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  const at::Tensor all = at::tensor(at::ArrayRef<int64_t>(order), at::kLong);
  std::vector<at::Tensor> batches;
  for (int64_t first = 0; first < num_sequences; first += batch_size)
    batches.push_back(all.narrow(0, first, std::min(batch_size, num_sequences - first)));
  return batches;
}

/// What is trained, and how layers multiply with it meanwhile.
class Learned {
 public:
  Learned(const BlockTask& task, bool clips, at::ScalarType dtype) : task_(task), dtype_(dtype) {
    for (quant::QuantLinear* linear : task.linears) {
      const auto add = [&](const char* name, const at::Tensor& value, nn::Role role) {
        parameters_.push_back({cat(linear->name(), ".", name), value, role, value.sizes().vec()});
      };
      if (clips) {
        clips_.push_back(initial_clips(linear->master_weight(), linear->scheme()));
        add("high", clips_.back().high, nn::Role::kClip);
        add("low", clips_.back().low, nn::Role::kClip);
        continue;
      }
      add("weight", linear->master_weight(), nn::Role::kWeight);
      for (const auto& parameter : quant::parameters_of(linear->scheme()))
        add(parameter.name, linear->quantizer().parameters().*parameter.member, parameter.role);
    }
    for (const auto& parameter : parameters_) start_.push_back(parameter.value.detach().clone());
  }
  ~Learned() { let_go(); }
  Learned(const Learned&) = delete;
  Learned& operator=(const Learned&) = delete;

  const std::vector<nn::Parameter>& parameters() const { return parameters_; }
  /// Layers take what is learned, attached to it: once a step.
  void apply() const {
    for (size_t i = 0; i < clips_.size(); ++i)
      task_.linears[i]->hold(
          clipped_weight(task_.linears[i]->master_weight(), clips_[i], task_.linears[i]->scheme(), dtype_));
  }
  void let_go() const {
    for (size_t i = 0; i < clips_.size(); ++i) task_.linears[i]->hold({});
  }
  void restore() const {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < parameters_.size(); ++i) at::Tensor(parameters_[i].value).copy_(start_[i]);
  }
  /// From here on layers hold it themselves.
  void finish() const {
    let_go();
    for (size_t i = 0; i < clips_.size(); ++i) satin::ptq::hold(*task_.linears[i], clips_[i]);
  }

 private:
  const BlockTask& task_;
  at::ScalarType dtype_;
  std::vector<Clips> clips_;
  std::vector<nn::Parameter> parameters_;
  std::vector<at::Tensor> start_;
};

/// Parameters that a block has beside what is learned got gradients as well.
void drop_gradients(const Blocks& blocks) {
  for (const nn::Parameter& parameter : blocks.decoder().parameters().all())
    if (parameter.value.requires_grad()) at::Tensor(parameter.value).mutable_grad() = at::Tensor();
}

}  // namespace

BlockLoss block_loss(const Blocks& blocks, const BlockTask& task) {
  BlockLoss loss;
  const bool with_gradients = task.gradients.defined();
  for (const at::Tensor& which : blocks.batches()) {
    const at::AutoGradMode grad(with_gradients);
    const at::Tensor x = blocks.take(task.inputs, which).requires_grad_(with_gradients);
    const at::Tensor output = blocks.run(task.block, x, which);
    const auto add = [&](double& sum, const at::Tensor& found, const at::Tensor& wanted) {
      sum += (found.detach() - blocks.take(wanted, which)).square().sum(at::kDouble).item<double>();
    };
    add(loss.outputs, output, task.targets);
    if (with_gradients)
      add(loss.gradients, gradient_at(output, x, blocks.take(task.output_gradients, which)), task.gradients);
  }
  const auto count = static_cast<double>(task.inputs.numel());
  return {loss.outputs / count, loss.gradients / count};
}

at::Tensor block_surrogate(const Blocks& blocks, const BlockTask& task, const at::Tensor& which, double weight) {
  const bool with_gradients = weight > 0 && task.gradients.defined();
  const at::Tensor x = blocks.take(task.inputs, which).requires_grad_(with_gradients);
  const at::Tensor output = blocks.run(task.block, x, which);
  at::Tensor surrogate = (output - blocks.take(task.targets, which)).square().mean();
  if (!with_gradients) return surrogate;
  const at::Tensor slope = blocks.take(task.output_gradients, which);
  const at::Tensor missing = blocks.take(task.gradients, which) - gradient_at(output, x, slope);
  const at::Tensor step = kRelativeStep * root_mean_square(x.detach()) / root_mean_square(missing).clamp_min(1e-30);
  const at::Tensor ahead = blocks.run(task.block, x.detach() + step * missing, which);
  const at::Tensor behind = blocks.run(task.block, x.detach() - step * missing, which);
  const at::Tensor difference = (slope * (ahead - behind)).sum() / (2 * step);
  return surrogate - 2 * weight / static_cast<double>(x.numel()) * difference;
}

double block_ap_rate(int bits, int64_t updates) {
  constexpr double kPublishedUpdates = 4096, kMost = 1e-3;
  return std::min(kMost, (bits <= 2 ? 2e-5 : 1e-5) * kPublishedUpdates / static_cast<double>(updates));
}

BlockTraining train_block(const Blocks& blocks, const BlockTask& task, bool clips, const config::Ptq& options,
                          uint64_t seed) {
  // bf16 does not resolve the central difference.
  nn::ParameterStore& store = blocks.decoder().parameters();
  std::optional<nn::ComputeScope> scope;
  if (options.gradient_ratio > 0 && store.options().compute_dtype == at::kBFloat16) scope.emplace(store, at::kFloat);
  const Learned learned(task, clips, store.options().compute_dtype);
  const int64_t num_sequences = task.inputs.size(0);
  const int64_t per_epoch = (num_sequences + options.batch_size - 1) / options.batch_size;
  config::Optimizer rates;
  rates.learning_rate = options.weight_learning_rate > 0
                            ? options.weight_learning_rate
                            : block_ap_rate(task.linears.front()->scheme().bits, options.epochs * per_epoch);
  rates.scale_learning_rate = rates.zero_point_learning_rate = options.scale_learning_rate;
  rates.clip_learning_rate = options.clip_learning_rate;
  rates.beta2 = 0.999;
  optim::AdamW adam(learned.parameters(), rates);

  BlockTraining found;
  const auto measure = [&] {
    const at::NoGradGuard no_grad;
    learned.apply();
    return block_loss(blocks, task);
  };
  found.before = measure();
  if (found.before.gradients > 0) found.weight = options.gradient_ratio * found.before.outputs / found.before.gradients;
  const double total = static_cast<double>(options.epochs * per_epoch);
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    for (const at::Tensor& which : shuffled_batches(num_sequences, options.batch_size, seed, task.block, epoch)) {
      stop_if_asked();
      const at::AutoGradMode enable_grad(true);
      learned.apply();
      block_surrogate(blocks, task, which, found.weight).backward();
      adam.step(1 - static_cast<double>(step++) / total);
      adam.zero_grad();
      drop_gradients(blocks);
    }
    progress(cat("block ", task.block + 1, " of ", blocks.size(), ": epoch ", epoch + 1, " of ", options.epochs));
  }
  found.after = measure();
  const double after = found.after.total(found.weight);
  if (!std::isfinite(after))
    throw DivergedError(cat("block ", task.block,
                            ": its loss is not finite; lower ptq.weight_learning_rate, "
                            "ptq.scale_learning_rate or ptq.clip_learning_rate"));
  if (after > found.before.total(found.weight)) {
    log_warning(cat("block ", task.block, ": training did not lower its loss; it stays as it was"));
    learned.restore();
    found.after = found.before;
  }
  learned.finish();
  return found;
}

}  // namespace satin::ptq
