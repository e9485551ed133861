#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/add_rows.h"
#include "ops/add_rows.h"
#include "ops/checks.h"

namespace satin::ops {

void add_rows_on_cuda(const at::Tensor& sums, const at::Tensor& ids, const at::Tensor& order, const at::Tensor& rows) {
  const c10::cuda::CUDAGuard guard(sums.device());
  CUstream_st* const stream = c10::cuda::getCurrentCUDAStream();
  const auto call = [&]<class T>(T* to) {
    return kernels::AddRows<T>{ids.size(0),
                               sums.size(1),
                               ids.const_data_ptr<int64_t>(),
                               order.const_data_ptr<int64_t>(),
                               rows.const_data_ptr(),
                               to};
  };
  if (sums.scalar_type() == at::kDouble)
    kernels::add_rows_cuda(call(sums.mutable_data_ptr<double>()), stream);
  else
    kernels::add_rows_cuda(call(sums.mutable_data_ptr<float>()), kernel_dtype(rows.scalar_type()), stream);
}

}  // namespace satin::ops
