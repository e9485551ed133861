#include "cli/version.h"

#include <torch/headeronly/version.h>

#include "core/error.h"
#include "ops/cuda_properties.h"

namespace satin::cli {

std::string version_text() {
  return cat("satin " SATIN_VERSION " (torch " TORCH_VERSION ", CUDA ", ops::cuda_toolkit_version(), ")");
}

}  // namespace satin::cli
