// What peer_copies.cpp calls of CUDA, done at once on the CPU: a rank is a thread, its stream what the thread does, and
// memory of other ranks this process's own. Copies and flags come late at random.
#pragma once
#include <c10/core/Device.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>

using cudaError_t = int;
using CUresult = int;
using cudaStream_t = void*;
using CUstream = void*;
using CUdeviceptr = unsigned long long;
using cuuint32_t = uint32_t;
struct cudaIpcMemHandle_t {
  void* at;
};
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };
constexpr int cudaSuccess = 0, cudaStreamNonBlocking = 1, cudaMemcpyDeviceToDevice = 3, cudaEnableDefault = 0,
              cudaDevAttrCanFlushRemoteWrites = 0, cudaIpcMemLazyEnablePeerAccess = 1;
constexpr CUresult CUDA_SUCCESS = 0;
constexpr unsigned CU_STREAM_WAIT_VALUE_GEQ = 0, CU_STREAM_WAIT_VALUE_FLUSH = 1, CU_STREAM_WRITE_VALUE_DEFAULT = 0;
#define C10_CUDA_CHECK(call) static_cast<void>(call)

namespace satin::test {

inline void come_late() {
  thread_local std::mt19937 random(static_cast<unsigned>(std::hash<std::thread::id>()(std::this_thread::get_id())));
  if (random() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
}
inline uint32_t* flag_at(CUdeviceptr at) { return reinterpret_cast<uint32_t*>(at); }
inline CUresult write_value(CUstream, CUdeviceptr at, cuuint32_t value, unsigned) {
  come_late();
  __atomic_store_n(flag_at(at), value, __ATOMIC_SEQ_CST);
  return CUDA_SUCCESS;
}
inline CUresult wait_value(CUstream, CUdeviceptr at, cuuint32_t value, unsigned) {
  const auto begin = std::chrono::steady_clock::now();
  while (static_cast<int32_t>(__atomic_load_n(flag_at(at), __ATOMIC_SEQ_CST) - value) < 0) {
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(20)) return 1;  // nobody will
    std::this_thread::yield();
  }
  return CUDA_SUCCESS;
}

}  // namespace satin::test

inline cudaError_t cudaMalloc(void** to, size_t bytes) {
  *to = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(to, value, bytes);
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, cudaStream_t) {
  satin::test::come_late();
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* memory) {
  handle->at = memory;
  return cudaSuccess;
}
inline cudaError_t cudaIpcOpenMemHandle(void** to, cudaIpcMemHandle_t handle, int) {
  *to = handle.at;
  return cudaSuccess;
}
inline cudaError_t cudaIpcCloseMemHandle(void*) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, int) { return cudaSuccess; }
inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t*, int, int) { return cudaSuccess; }
inline cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
  *value = 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, int,
                                                    cudaDriverEntryPointQueryResult* found) {
  const bool writes = std::string(name) == "cuStreamWriteValue32";
  *function = reinterpret_cast<void*>(writes ? satin::test::write_value : satin::test::wait_value);
  *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

namespace c10::cuda {
struct CUDAGuard {
  explicit CUDAGuard(c10::Device) {}
};
struct CUDAStreamGuard {
  explicit CUDAStreamGuard(int) {}
};
inline int getStreamFromExternal(cudaStream_t, c10::DeviceIndex) { return 0; }
namespace CUDACachingAllocator {
inline void emptyCache() {}
}  // namespace CUDACachingAllocator
}  // namespace c10::cuda

namespace at::cuda {
inline int getCurrentCUDAStream(c10::DeviceIndex) { return 0; }
struct CUDAEvent {
  void record(int) {}
  void block(int) {}
};
}  // namespace at::cuda
