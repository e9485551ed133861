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

/// The tasks whose numbers can be read V at a time, no more.
template <class T, int V>
void launch(std::span<const AdamWTask<T>> tasks, const AdamWBetas& betas, const float* skip, CUstream_st* stream) {
  const auto make_work = [](const AdamWTask<T>& task) -> std::optional<Work<AdamWTask<T>>> {
    const bool wide = task.n % kWidth<T> == 0 && aligned({task.w, task.gradient, task.mean, task.square});
    if (wide != (V > 1)) return std::nullopt;
    constexpr int64_t kABlock = int64_t{kThreads} * kVectorsAThread * V;
    return Work<AdamWTask<T>>{task, (task.n + kABlock - 1) / kABlock};
  };
  launch_batches<AdamWTask<T>>(tasks, make_work, [&](const Batch<AdamWTask<T>>& batch) {
    launch_kernel(adamw_kernel<T, V>, batch.num_blocks(), stream, betas, skip, batch);
  });
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
