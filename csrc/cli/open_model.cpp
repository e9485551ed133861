#include "cli/open_model.h"

#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "export/gguf.h"
#include "ops/device.h"
#include "train/models.h"

namespace satin::cli {
namespace {

exporting::WeightForm weight_form(const std::string& kernel, const exporting::ShippedModel& model,
                                  const nn::BuildOptions& options) {
  if (kernel == "dense") return exporting::WeightForm::kDense;
  const bool quantized =
      std::any_of(model.tensors.begin(), model.tensors.end(), [](const auto& tensor) { return tensor.scheme; });
  if (kernel == "low-bit") {
    if (!quantized)
      throw UserError(cat("--kernel low-bit: ", model.directory.string(), " (", model.kind,
                          ") holds no quantized weights; use --kernel dense or auto"));
    return exporting::WeightForm::kPacked;
  }
  const bool served = options.device.is_cuda() ? ops::compute_capability(options.device) == 90 &&
                                                     c10::elementSize(options.compute_dtype) == 2
                                               : options.compute_dtype != at::kDouble;
  return quantized && served ? exporting::WeightForm::kPacked : exporting::WeightForm::kDense;
}

}  // namespace

void check_kernel(const std::string& kernel) {
  static const std::vector<std::string> kKernels = {"auto", "dense", "low-bit"};
  if (std::find(kKernels.begin(), kKernels.end(), kernel) == kKernels.end())
    throw UserError(
        cat("--kernel: expected auto, dense or low-bit, found '", kernel, "'", did_you_mean(kernel, kKernels)));
}

OpenModel open_model(const std::string& directory, const std::string& device, const std::string& compute_dtype,
                     const std::string& kv_cache, const std::string& kernel) {
  check_kernel(kernel);
  ops::configure_numerics(/*deterministic=*/false);
  OpenModel opened{exporting::open_model(directory), exporting::open_tokenizer(directory), nullptr};
  train::check_vocabulary(opened.tokenizer, opened.model.config, directory);
  nn::BuildOptions options;
  options.device = ops::resolve_device(device);
  options.compute_dtype = options.master_dtype = ops::resolve_compute_dtype(compute_dtype, options.device);
  if (!kv_cache.empty()) {
    models::kv_cache_format(kv_cache, "--kv-cache");
    opened.model.kv_cache = kv_cache;
  }
  opened.decoder = exporting::build_decoder(opened.model, options, weight_form(kernel, opened.model, options));
  return opened;
}

}  // namespace satin::cli
