#include "train/step.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>

#include "bench/benchmarks.h"
#include "bench/timer.h"
#include "core/error.h"
#include "ops/device.h"
#include "optim/adamw.h"
#include "optim/clip.h"
#include "report/throughput.h"
#include "train/models.h"

namespace satin::bench {
namespace {

const std::string kDense = "dense";

/// A model in training, as the trainer steps it, on the same random tokens each time.
class Training {
 public:
  Training(const std::string& shape, const std::string& method, at::ScalarType master, int64_t sequences,
           int64_t length, at::Device device) {
    nn::BuildOptions build;
    build.device = device;
    build.master_dtype = device.is_cuda() ? master : at::kFloat;
    build.compute_dtype = device.is_cuda() ? at::kBFloat16 : at::kFloat;
    build.trainable = true;
    nn::LinearFactory factory = nn::dense_linear_factory();
    if (method != kDense) {
      config::Quantization quantization;  // 2 bits, group 64
      quantization.default_rule.method = method;
      quantization.default_rule.init = "data";
      factory = quant::quant_linear_factory(quant::Policy(quantization), registry_);
    }
    student_ = std::make_unique<models::Decoder>(named_shape(shape), factory, build);
    {
      const at::NoGradGuard no_grad;  // on the device: what the weights are does not matter here
      for (const nn::Parameter& parameter : student_->parameters().all())
        parameter.role == nn::Role::kNorm ? at::Tensor(parameter.value).fill_(1)
                                          : at::Tensor(parameter.value).normal_(0, 0.02);
    }
    quant::initialise_from_weights(registry_);
    config::Loss loss;
    loss.ce.weight = 1;
    loss.kd.weight = 0;
    loss.neighbourhood.rate = 0;
    objective_ = std::make_unique<losses::Objective>(loss);
    const int64_t vocabulary = student_->config().vocab_size;
    neighbourhood_ = std::make_unique<losses::Neighbourhood>(loss.neighbourhood, vocabulary, std::vector<int64_t>{}, 0);
    step_ = std::make_unique<train::TrainingStep>(*student_, registry_, nullptr, *objective_, *neighbourhood_,
                                                  loss.chunk_tokens);
    optimizer_ = std::make_unique<optim::AdamW>(student_->parameters().all(), config::Optimizer{});
    batch_.tokens = at::randint(vocabulary, {sequences, length}, at::kLong);
    batch_.loss_mask = at::ones({sequences, length}, at::kBool);
    batch_.loss_mask.select(1, length - 1).fill_(false);
    if (device.is_cuda()) {  // copies from other memory cannot be captured
      batch_.tokens = batch_.tokens.pin_memory();
      batch_.loss_mask = batch_.loss_mask.pin_memory();
    }
    for (int64_t i = 0; i < sequences; ++i) batch_.sample_ids.push_back(static_cast<uint64_t>(i));
  }

  void step() {
    step_->run({batch_}, 0.5);
    const auto& parameters = student_->parameters().all();
    const optim::GradientNorms norms = optim::gradient_norms(parameters);
    const at::Tensor bad = optim::non_finite(norms);
    optim::clip_gradients(parameters, norms, 1);
    optimizer_->step(1e-3, bad);
    optimizer_->zero_grad();
  }

  report::ModelSize size() const { return train::model_size(*student_); }

 private:
  quant::Registry registry_;
  std::unique_ptr<models::Decoder> student_;
  std::unique_ptr<losses::Objective> objective_;
  std::unique_ptr<losses::Neighbourhood> neighbourhood_;
  std::unique_ptr<train::TrainingStep> step_;
  std::unique_ptr<optim::AdamW> optimizer_;
  data::Batch batch_;
};

/// Time on the device (CUDA: a graph of whole steps, so that a slow host does not count) and, in the note, as the
/// trainer would see it.
Measurement time_steps(Training& training, at::Device device) {
  constexpr int kSteps = 8;
  std::vector<double> times;
  for (int i = 0; i < kSteps + 3; ++i) {
    ops::synchronize(device);
    const auto start = std::chrono::steady_clock::now();
    training.step();
    ops::synchronize(device);
    const double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
    if (i >= 3) times.push_back(us);
  }
  const Measurement eager = summarise(times);
  if (!device.is_cuda()) return eager;
  Measurement graph = time_calls(device, 1, [&](int) {
    training.step();
    return std::vector<at::Tensor>{};
  });
  graph.note = cat("launched from the host ", fixed(eager.us * 1e-3, 1), " ms; ");
  return graph;
}

}  // namespace

void bench_step(const Options& options) {
  struct Case {
    const char* shape;
    int64_t sequences, length;
  };
  const bool cuda = options.device.is_cuda();
  const std::vector<Case> cases = cuda ? std::vector<Case>{{"1.2b", 8, 2048}, {"135m", 16, 1024}, {"29m", 96, 1024}}
                                       : std::vector<Case>{{"tiny", 4, 64}};
  for (const Case& one : cases)
    for (const at::ScalarType master : {at::kFloat, at::kBFloat16}) {
      if (!cuda && master == at::kBFloat16) continue;
      double dense_us = 0;
      for (const std::string& method :
           {kDense, std::string("minmax_asymmetric"), std::string("lsq"), std::string("lsq_asymmetric")}) {
        const std::string name =
            cat(one.shape, " ", one.sequences, " x ", one.length, " ", dtype_name(master), " masters ", method);
        if (name.find(options.only) == std::string::npos) continue;
        Training training(one.shape, method, master, one.sequences, one.length, options.device);
        Measurement m = time_steps(training, options.device);
        m.name = name;
        if (method == kDense) dense_us = m.us;
        const double tokens = static_cast<double>(one.sequences * one.length);
        m.note += cat(fixed(tokens / m.us * 1e6, 0), " tokens/s");
        if (const auto peak = report::peak_flops_per_second(ops::device_name(options.device)))
          m.note += cat(", MFU ",
                        fixed(100 * tokens * report::training_flops_per_token(training.size(), one.length) /
                                  (m.us * 1e-6) / *peak,
                              1),
                        " %");
        if (method != kDense && dense_us > 0)
          m.note += cat(", dense + ", fixed((m.us - dense_us) * 1e-3, 2), " ms (",
                        fixed(100 * (m.us / dense_us - 1), 2), " %)");
        options.report(m);
      }
    }
}

}  // namespace satin::bench
