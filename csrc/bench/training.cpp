#include "bench/training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "losses/head.h"
#include "ops/device.h"
#include "optim/clip.h"
#include "train/models.h"

namespace satin::bench {
namespace {

/// On the device: what the weights are does not matter here.
void fill(models::Decoder& decoder) {
  const at::NoGradGuard no_grad;
  for (const nn::Parameter& parameter : decoder.parameters().all())
    parameter.role == nn::Role::kNorm ? at::Tensor(parameter.value).fill_(1)
                                      : at::Tensor(parameter.value).normal_(0, 0.02);
}

/// k random tokens a position; a tenth of the probability is elsewhere.
data::StoredTeacher random_teacher(int64_t sequences, int64_t length, int64_t vocabulary, int64_t k) {
  data::StoredTeacher stored;
  stored.ids = at::arange(k, at::kInt).mul_(vocabulary / k).expand({sequences, length, k}).contiguous();
  const at::Tensor logits = std::get<0>((at::randn({sequences, length, k}) * 3).sort(-1, /*descending=*/true));
  stored.logits = logits - logits.narrow(-1, 0, 1);
  stored.log_total = stored.logits.logsumexp(-1) - std::log(0.9);
  stored.log_rest = at::full({sequences, length}, std::log(0.1), at::kFloat);
  return stored;
}

}  // namespace

config::Loss cross_entropy_alone() {
  config::Loss loss;
  loss.ce.weight = 1;
  loss.kd.weight = 0;
  loss.neighbourhood.rate = 0;
  return loss;
}

Training::Training(const TrainingOptions& options) : options_(options) {
  const at::Device device = options.device;
  nn::BuildOptions build;
  build.device = device;
  build.master_dtype = at::kFloat;
  build.compute_dtype = device.is_cuda() ? at::kBFloat16 : at::kFloat;
  build.trainable = true;
  nn::LinearFactory factory = nn::dense_linear_factory();
  if (options.method != "dense") {
    config::Quantization quantization;
    quantization.default_rule.method = options.method;
    quantization.default_rule.init = "data";
    if (options.int8_activations) {
      quantization.default_rule.activations = "int8";
      quantization.default_rule.group_size = options.group_size;
    }
    registry_.allow_low_bit_products(options.low_bit_products);
    factory = quant::quant_linear_factory(quant::Policy(quantization), registry_);
  }
  student_ = std::make_unique<models::Decoder>(named_shape(options.shape), factory, build);
  fill(*student_);
  quant::initialise_from_weights(registry_);
  objective_ = std::make_unique<losses::Objective>(options.loss);
  const int64_t vocabulary = student_->config().vocab_size;
  neighbourhood_ = std::make_unique<losses::Neighbourhood>(train::effective_neighbourhood(options.loss), vocabulary,
                                                           std::vector<int64_t>{}, 0);
  const bool from_store = options.stored_top_k > 0 && !neighbourhood_->enabled();
  if (objective_->needs_teacher() && !from_store) {
    build.master_dtype = build.compute_dtype;
    build.trainable = false;
    teacher_ = std::make_unique<models::Decoder>(named_shape(options.shape), nn::dense_linear_factory(), build);
    fill(*teacher_);
  }
  step_ = std::make_unique<train::TrainingStep>(*student_, registry_, teacher_.get(), *objective_, *neighbourhood_,
                                                train::StepOptions{.chunk_tokens = options.loss.chunk_tokens});
  optimizer_ = std::make_unique<optim::AdamW>(student_->parameters().all(), config::Optimizer{});
  const int64_t sequences = options.sequences, length = options.length;
  batch_.tokens = at::randint(vocabulary, {sequences, length}, at::kLong);
  batch_.loss_mask = at::ones({sequences, length}, at::kBool);
  batch_.loss_mask.select(1, length - 1).fill_(false);
  if (options.stored_top_k > 0) batch_.teacher = random_teacher(sequences, length, vocabulary, options.stored_top_k);
  if (device.is_cuda()) {  // copies from other memory wait, and cannot be captured
    for (at::Tensor* x : {&batch_.tokens, &batch_.loss_mask, &batch_.teacher.ids, &batch_.teacher.logits,
                          &batch_.teacher.log_total, &batch_.teacher.log_rest})
      if (x->defined()) *x = x->pin_memory();
  }
  for (int64_t i = 0; i < sequences; ++i) batch_.sample_ids.push_back(static_cast<uint64_t>(i));
}

void Training::step() {
  step_->run({batch_}, 0.75);  // late: losses that start halfway are on
  const auto& parameters = student_->parameters().all();
  const optim::GradientNorms norms = optim::gradient_norms(parameters);
  const at::Tensor bad = optim::non_finite(norms);
  optimizer_->step(1e-3, optim::clip_factors(norms, 1), bad);
  optimizer_->zero_grad();
}

void Training::teacher_forward() {
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = teacher_->hidden(batch_.tokens.to(options_.device)).flatten(0, 1);
  const at::Tensor head = teacher_->head().weight();
  const losses::HeadChunks chunks(0, hidden.size(0), head.size(0), hidden.scalar_type(), options_.device);
  for (int64_t start = 0; start < hidden.size(0); start += chunks.logits)
    losses::head_logits(hidden.narrow(0, start, std::min(chunks.logits, hidden.size(0) - start)), head);
}

Measurement Training::time_from_host(const std::function<void()>& work) const {
  constexpr int kWarmUp = 3, kTimes = 12;
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + kTimes; ++i) {
    ops::synchronize(options_.device);
    const auto start = std::chrono::steady_clock::now();
    work();
    ops::synchronize(options_.device);
    const double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
    if (i >= kWarmUp) times.push_back(us);
  }
  return summarise(times);
}

report::ModelSize Training::size() const { return train::model_size(*student_); }

}  // namespace satin::bench
