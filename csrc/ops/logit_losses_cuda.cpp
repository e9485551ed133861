// CUDA: kernels on torch's current stream.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/anchors.h"
#include "ops/checks.h"
#include "ops/logit_losses_checks.h"

namespace satin::ops {
namespace {

at::Tensor logit_losses(const at::Tensor& student, const std::optional<at::Tensor>& teacher, const at::Tensor& targets,
                        const at::Tensor& weights, at::Tensor& grad, at::ArrayRef<double> numbers, int64_t divergence,
                        int64_t top_k, int64_t num_tokens) {
  const c10::cuda::CUDAGuard guard(student.device());
  const kernels::LogitLosses losses = make_losses(numbers, divergence, top_k, num_tokens);
  const LogitLossInputs in(losses, student, teacher, targets, weights, grad);
  kernels::logit_losses_cuda(losses, in.extent, kernel_dtype(student.scalar_type()), in.student.const_data_ptr(),
                             in.teacher_data(), in.targets.const_data_ptr<int64_t>(), in.weights.const_data_ptr(),
                             kernel_dtype(grad.scalar_type()), grad.mutable_data_ptr(), in.values.mutable_data_ptr(),
                             c10::cuda::getCurrentCUDAStream());
  return in.values;
}

at::Tensor stored_losses(const at::Tensor& student, const at::Tensor& ids, const at::Tensor& logits,
                         const at::Tensor& log_rest, const at::Tensor& log_mass, const at::Tensor& targets,
                         const at::Tensor& weights, at::Tensor& grad, at::ArrayRef<double> numbers) {
  const c10::cuda::CUDAGuard guard(student.device());
  const LogitLossInputs in(student, targets, weights, grad);
  const StoredTensors stored(student, ids, logits, log_rest, log_mass);
  kernels::stored_losses_cuda(make_losses(numbers, 0, 1, 0), in.extent, kernel_dtype(student.scalar_type()),
                              in.student.const_data_ptr(), stored.pointers(), in.targets.const_data_ptr<int64_t>(),
                              in.weights.const_data_ptr(), kernel_dtype(grad.scalar_type()), grad.mutable_data_ptr(),
                              in.values.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  return in.values;
}

std::tuple<at::Tensor, at::Tensor> top_k(const at::Tensor& logits, int64_t k) {
  const c10::cuda::CUDAGuard guard(logits.device());
  const kernels::Extent extent = top_k_extent(logits, k);
  const at::Tensor x = logits.contiguous();
  at::Tensor values = at::empty({extent.num_rows, k}, x.options());
  at::Tensor ids = at::empty({extent.num_rows, k}, x.options().dtype(at::kLong));
  kernels::top_k_cuda(extent, k, kernel_dtype(x.scalar_type()), x.const_data_ptr(), values.mutable_data_ptr(),
                      ids.mutable_data_ptr<int64_t>(), c10::cuda::getCurrentCUDAStream());
  return {values, ids};
}

TORCH_LIBRARY_IMPL(satin, CUDA, m) {
  m.impl("logit_losses", logit_losses);
  m.impl("stored_losses", stored_losses);
  m.impl("top_k", top_k);
}

}  // namespace

void anchor_logit_losses_cuda() {}

}  // namespace satin::ops
