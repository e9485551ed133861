#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/adamw.h"

namespace satin::ops {

void adamw_on_cuda(const AdamWBatch& batch) {
  const at::Tensor& first = batch.items[0].weight;
  const c10::cuda::CUDAGuard guard(first.device());
  const float* const skip = batch.skip.defined() ? batch.skip.const_data_ptr<float>() : nullptr;
  const auto run = [&]<class T>(const std::vector<kernels::AdamWTask<T>>& tasks) {
    kernels::adamw_cuda<T>(tasks, batch.betas, skip, c10::cuda::getCurrentCUDAStream());
  };
  if (first.scalar_type() == at::kDouble)
    run(adamw_tasks<double>(batch));
  else
    run(adamw_tasks<float>(batch));
}

}  // namespace satin::ops
