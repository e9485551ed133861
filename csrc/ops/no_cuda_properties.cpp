#include "core/error.h"
#include "ops/cuda_properties.h"

namespace satin::ops {

std::string cuda_name(int) { throw UserError("this build has no CUDA code: install a CUDA toolkit and build again"); }

int cuda_compute_capability(int) { return 0; }

int cuda_num_multiprocessors(int) { return 0; }

std::string cuda_toolkit_version() { return "none"; }

}  // namespace satin::ops
