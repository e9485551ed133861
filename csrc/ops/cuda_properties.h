// What only CUDA's headers can tell: cuda_properties.cpp with a toolkit, no_cuda_properties.cpp without.
#pragma once
#include <string>

namespace satin::ops {

/// Name of a CUDA device. Throws UserError in a build without CUDA.
std::string cuda_name(int index);
/// 90 for sm_90; 0 in a build without CUDA.
int cuda_compute_capability(int index);
/// 0 in a build without CUDA.
int cuda_num_multiprocessors(int index);
/// "13.0", or "none" in a build without CUDA.
std::string cuda_toolkit_version();

}  // namespace satin::ops
