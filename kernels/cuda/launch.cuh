// Launches that may begin while the kernel before them in the stream runs (programmatic dependent launch): those of
// text token by token, whose kernels are a few microseconds long.
#pragma once
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/cuda/ptx.cuh"

struct CUstream_st;  // cudaStream_t

namespace satin::kernels {

/// `name`: of what was asked, for errors.
inline void require(cudaError_t status, const char* name) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(status));
}

struct LaunchShape {
  unsigned blocks = 1, threads = 1;
  unsigned blocks_y = 1, blocks_z = 1;
  int shared_bytes = 0;  ///< launched_shared's
  unsigned cluster = 1;  ///< blocks
};

/// `name`: the kernel's, for errors. The kernel waits (wait_for_dependencies) before it touches what kernels before it
/// write or read. Devices before sm_90 begin it after them.
template <class... Parameters>
void launch_early([[maybe_unused]] const char* name, void (*kernel)(Parameters...), const LaunchShape& shape,
                  [[maybe_unused]] CUstream_st* stream, const std::type_identity_t<Parameters>&... arguments) {
#if defined(__CUDACC__)
  int device = 0, major = 0;
  require(cudaGetDevice(&device), name);
  require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), name);
  if (shape.shared_bytes > 0)
    require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes), name);
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {shape.cluster, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = {shape.blocks, shape.blocks_y, shape.blocks_z};
  config.blockDim = {shape.threads, 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = major < 9 ? 0 : shape.cluster > 1 ? 2 : 1;
  require(cudaLaunchKernelEx(&config, kernel, arguments...), name);
#else
  emulation::Block block(shape.threads, [&] { kernel(arguments...); });
  for (blockIdx.x = 0; blockIdx.x < shape.blocks; ++blockIdx.x) {
    emulation::launched_memory().assign(static_cast<size_t>(shape.shared_bytes) / 8 + 1, ~uint64_t{0});
    block.run();
  }
#endif
}

}  // namespace satin::kernels
