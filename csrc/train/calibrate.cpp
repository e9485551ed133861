#include "train/calibrate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "data/loader.h"
#include "dist/together.h"
#include "quant/held_weights.h"

namespace satin::train {

bool needs_calibration(const Student& student) {
  const auto& modules = student.registry->modules();
  return std::any_of(modules.begin(), modules.end(),
                     [](const auto& module) { return module.scheme.needs_calibration(); });
}

namespace {

/// What layers see of their inputs, of one micro-batch or of all so far: one row of numbers.
class Seen {
 public:
  explicit Seen(const quant::Registry& registry) {
    for (const auto& module : registry.modules())
      if (module.scheme.needs_calibration()) linears_.push_back(module.linear);
  }
  void observe(bool on) const {
    for (quant::QuantLinear* linear : linears_) linear->observe(on);
  }
  at::Tensor read() const {
    std::vector<at::Tensor> parts;
    for (const auto* linear : linears_)
      for (const at::Tensor& part : {linear->statistics()->squares, linear->statistics()->largest})
        parts.push_back(part);
    return at::cat(parts);
  }
  /// all = all and one more micro-batch.
  void add(const at::Tensor& all, const at::Tensor& one) const {
    int64_t at = 0;
    const auto next = [&](const at::Tensor& of, int64_t n) { return of.narrow(0, at, n); };
    for (const auto* linear : linears_) {
      const int64_t n = linear->statistics()->squares.size(0);
      next(all, n).add_(next(one, n));
      at += n;
      next(all, n).copy_(at::maximum(next(all, n), next(one, n)));
      at += n;
    }
  }
  void write(const at::Tensor& all) const {
    int64_t at = 0;
    for (const auto* linear : linears_)
      for (const at::Tensor& part : {linear->statistics()->squares, linear->statistics()->largest}) {
        part.copy_(all.narrow(0, at, part.size(0)));
        at += part.size(0);
      }
  }

 private:
  std::vector<quant::QuantLinear*> linears_;
};

}  // namespace

void calibrate(const config::Config& config, const Student& student, const data::Dataset& dataset,
               const dist::Sharing& sharing, dist::Communicator& world) {
  const at::NoGradGuard no_grad;
  const quant::Registry& registry = *student.registry;
  const Seen seen(registry);
  registry.enable(false);
  std::optional<quant::HeldWeights> masters(std::in_place, registry,
                                            student.decoder->parameters().options().compute_dtype,
                                            /*trainable=*/false, sharing);  // whole, where they are split
  masters->bring_all();
  data::Loader loader(dataset, {{config.train.micro_batch_size, config.train.micro_batch_size},
                                student.decoder->parameters().options().device.is_cuda()});
  const int64_t wanted = config.quantization->calibration_sequences, at_once = config.train.micro_batch_size;
  const int64_t num_batches = (wanted + at_once - 1) / at_once;
  at::Tensor all;
  for (int64_t begin = 0; begin < num_batches; begin += world.size()) {
    const int64_t end = std::min(num_batches, begin + world.size());
    seen.observe(true);
    dist::together(world, [&] {
      if (const int signal = interrupt_signal())
        throw InterruptedError(cat("stopped by signal ", signal, " while calibrating; nothing was lost"));
      for (int64_t i = begin; i < end; ++i) {
        const data::Batch batch = loader.next().batch;
        if (i != begin + world.rank()) continue;                        // another rank's
        const int64_t count = std::min(wanted - i * at_once, at_once);  // not what a micro-batch happens to hold
        const at::Tensor& ids = batch.document_ids;
        student.decoder->hidden(batch.tokens.narrow(0, 0, count),
                                {.document_ids = ids.defined() ? ids.narrow(0, 0, count) : ids});
      }
    });
    const at::Tensor own = seen.read();
    if (!all.defined()) all = at::zeros_like(own);
    for (int64_t i = begin; i < end; ++i) {  // added in the sequences' order
      const at::Tensor one = i == begin + world.rank() ? own : at::empty_like(own);
      world.broadcast(one, i - begin).wait();
      seen.add(all, one);
    }
  }
  seen.write(all);
  masters.reset();
  seen.observe(false);
  registry.enable(true);
  dist::together(world, [&] { quant::initialise_from_weights(*student.registry); });
  log_info(cat("calibrated on ", wanted, " training sequences"));
}

}  // namespace satin::train
