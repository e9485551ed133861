// CUDA kernel of adamw.h: up to 256 tensors a launch, of any size, 28 bytes of traffic a number in float.
//
// Written for the memory: a thread asks for all it needs of kVectorsAThread vectors before it computes, and what is the
// same for a tensor (powers of the decays) comes in as numbers.
#include "kernels/adamw.h"
#include "kernels/adamw_math.h"
#include "kernels/cuda/fake_quant_device.cuh"

namespace satin::kernels {
namespace {

template <class T>
constexpr int kWidth = 16 / sizeof(T);

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(const AdamWBetas betas, const float* skip, const __grid_constant__ Batch<AdamWTask<T>> batch) {
  if (skip && *skip != 0) return;
  const auto [task, block] = batch.find();
  const AdamWStep<T> step(betas, task);
  const int64_t first = (static_cast<int64_t>(block) * kThreads * kVectorsAThread + threadIdx.x) * V;
  Pack<T, V> w[kVectorsAThread], gradient[kVectorsAThread], mean[kVectorsAThread], square[kVectorsAThread];
#pragma unroll
  for (int k = 0; k < kVectorsAThread; ++k) {
    const int64_t i = first + k * kThreads * V;
    if (i >= task.n) break;
    w[k] = load_pack<V>(task.w + i);
    gradient[k] = load_pack<V>(task.gradient + i);
    mean[k] = load_pack<V>(task.mean + i);
    square[k] = load_pack<V>(task.square + i);
  }
#pragma unroll
  for (int k = 0; k < kVectorsAThread; ++k) {
    const int64_t i = first + k * kThreads * V;
    if (i >= task.n) break;
#pragma unroll
    for (int v = 0; v < V; ++v)
      step.update(w[k].values[v], gradient[k].values[v], mean[k].values[v], square[k].values[v]);
    store_pack<V>(task.w + i, w[k]);
    store_pack<V>(task.mean + i, mean[k]);
    store_pack<V>(task.square + i, square[k]);
  }
}

/// One launch for as many of the tasks as fit, those whose numbers can be read V at a time.
template <class T, int V>
void launch(std::span<const AdamWTask<T>> tasks, const AdamWBetas& betas, const float* skip, CUstream_st* stream) {
  Batch<AdamWTask<T>> batch;
  static_assert(sizeof batch <= 32000);
  const auto flush = [&] {
    if (batch.num_blocks() == 0) return;
    batch.index();
    launch_kernel(adamw_kernel<T, V>, batch.num_blocks(), stream, betas, skip, batch);
    batch.clear();
  };
  for (const AdamWTask<T>& task : tasks) {
    const bool wide = task.n % kWidth<T> == 0 && aligned({task.w, task.gradient, task.mean, task.square});
    if (task.n == 0 || wide != (V > 1)) continue;
    constexpr int64_t kABlock = int64_t{kThreads} * kVectorsAThread * V;
    const int64_t num_blocks = (task.n + kABlock - 1) / kABlock;
    if (num_blocks > 0x7fffffff)
      throw std::invalid_argument("adamw: " + std::to_string(task.n) + " numbers are too many for one launch");
    if (batch.add(task, num_blocks)) continue;
    flush();
    batch.add(task, num_blocks);
  }
  flush();
}

}  // namespace

template <class T>
void adamw_cuda(std::span<const AdamWTask<T>> tasks, const AdamWBetas& betas, const float* skip, CUstream_st* stream) {
  launch<T, kWidth<T>>(tasks, betas, skip, stream);
  launch<T, 1>(tasks, betas, skip, stream);
  check_launch("adamw_cuda");
}

template void adamw_cuda(std::span<const AdamWTask<float>>, const AdamWBetas&, const float*, CUstream_st*);
template void adamw_cuda(std::span<const AdamWTask<double>>, const AdamWBetas&, const float*, CUstream_st*);

}  // namespace satin::kernels
