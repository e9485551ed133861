#include "cli/open_model.h"

#include "export/gguf.h"
#include "ops/device.h"
#include "train/models.h"

namespace satin::cli {

OpenModel open_model(const std::string& directory, const std::string& device, const std::string& compute_dtype,
                     const std::string& kv_cache) {
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
  opened.decoder = exporting::build_decoder(opened.model, options);
  return opened;
}

}  // namespace satin::cli
