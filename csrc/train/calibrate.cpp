#include "train/calibrate.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "data/loader.h"
#include "quant/held_weights.h"

namespace satin::train {

bool needs_calibration(const Student& student) {
  const auto& modules = student.registry->modules();
  return std::any_of(modules.begin(), modules.end(),
                     [](const auto& module) { return module.scheme.needs_calibration(); });
}

void calibrate(const config::Config& config, const Student& student, const data::Dataset& dataset,
               const dist::Sharing& sharing) {
  const at::NoGradGuard no_grad;
  const quant::Registry& registry = *student.registry;
  const auto observe = [&](bool on) {
    for (const auto& module : registry.modules())
      if (module.scheme.needs_calibration()) module.linear->observe(on);
  };
  registry.enable(false);
  observe(true);
  std::optional<quant::HeldWeights> masters(std::in_place, registry,
                                            student.decoder->parameters().options().compute_dtype,
                                            /*trainable=*/false, sharing);  // whole, where they are split
  masters->bring_all();
  data::Loader loader(dataset, {{config.train.micro_batch_size, config.train.micro_batch_size},
                                student.decoder->parameters().options().device.is_cuda()});
  const int64_t wanted = config.quantization->calibration_sequences;
  for (int64_t read = 0; read < wanted; read += config.train.micro_batch_size) {
    if (const int signal = interrupt_signal())
      throw InterruptedError(cat("stopped by signal ", signal, " while calibrating; nothing was lost"));
    const data::Batch batch = loader.next().batch;
    const int64_t count = std::min(wanted - read, batch.tokens.size(0));  // not what a micro-batch happens to hold
    const at::Tensor& ids = batch.document_ids;
    student.decoder->hidden(batch.tokens.narrow(0, 0, count),
                            {.document_ids = ids.defined() ? ids.narrow(0, 0, count) : ids});
  }
  masters.reset();
  observe(false);
  registry.enable(true);
  quant::initialise_from_weights(*student.registry);
  log_info(cat("calibrated on ", wanted, " training sequences"));
}

}  // namespace satin::train
