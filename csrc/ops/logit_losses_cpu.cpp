// CPU: rows over torch's threads. A bfloat16 gradient is computed in fp32.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "ops/anchors.h"
#include "ops/logit_losses_checks.h"
#include "ops/over_rows.h"

namespace satin::ops {
namespace {

/// body(wide): the gradient in the logits' dtype, which is `grad` itself or copied to it.
template <class Body>
void with_wide(at::Tensor& grad, const at::Tensor& logits, const Body& body) {
  const bool direct = grad.scalar_type() == logits.scalar_type();
  at::Tensor wide = direct ? grad : at::empty_like(logits);
  body(wide);
  if (!direct) grad.copy_(wide);
}

at::Tensor logit_losses(const at::Tensor& student, const std::optional<at::Tensor>& teacher, const at::Tensor& targets,
                        const at::Tensor& weights, at::Tensor& grad, at::ArrayRef<double> numbers, int64_t divergence,
                        int64_t top_k, int64_t num_tokens) {
  const kernels::LogitLosses losses = make_losses(numbers, divergence, top_k, num_tokens);
  const LogitLossInputs in(losses, student, teacher, targets, weights, grad);
  with_wide(grad, in.student, [&](at::Tensor& wide) {
    for_scalar(student.scalar_type(), [&]<class T>(T) {
      const auto* z = static_cast<const T*>(in.teacher_data());
      over_rows(in.extent, [&](int64_t begin, int64_t end) {
        kernels::logit_losses_cpu(losses, in.extent, begin, end, in.student.const_data_ptr<T>(), z,
                                  in.targets.const_data_ptr<int64_t>(), in.weights.const_data_ptr<T>(),
                                  wide.mutable_data_ptr<T>(), in.values.mutable_data_ptr<T>());
      });
    });
  });
  return in.values;
}

at::Tensor stored_losses(const at::Tensor& student, const at::Tensor& ids, const at::Tensor& logits,
                         const at::Tensor& log_rest, const at::Tensor& log_mass, const at::Tensor& targets,
                         const at::Tensor& weights, at::Tensor& grad, at::ArrayRef<double> numbers) {
  const kernels::LogitLosses losses = make_losses(numbers, 0, 1, 0);
  const LogitLossInputs in(student, targets, weights, grad);
  const StoredTensors stored(student, ids, logits, log_rest, log_mass);
  with_wide(grad, in.student, [&](at::Tensor& wide) {
    for_scalar(student.scalar_type(), [&]<class T>(T) {
      over_rows(in.extent, [&](int64_t begin, int64_t end) {
        kernels::stored_losses_cpu(losses, in.extent, begin, end, in.student.const_data_ptr<T>(), stored.pointers(),
                                   in.targets.const_data_ptr<int64_t>(), in.weights.const_data_ptr<T>(),
                                   wide.mutable_data_ptr<T>(), in.values.mutable_data_ptr<T>());
      });
    });
  });
  return in.values;
}

std::tuple<at::Tensor, at::Tensor> top_k(const at::Tensor& logits, int64_t k) {
  const kernels::Extent extent = top_k_extent(logits, k);
  const at::Tensor x = logits.contiguous();
  at::Tensor values = at::empty({extent.num_rows, k}, x.options());
  at::Tensor ids = at::empty({extent.num_rows, k}, x.options().dtype(at::kLong));
  for_scalar(x.scalar_type(), [&]<class T>(T) {
    over_rows(extent, [&](int64_t begin, int64_t end) {
      kernels::top_k_cpu(extent, k, begin, end, x.const_data_ptr<T>(), values.mutable_data_ptr<T>(),
                         ids.mutable_data_ptr<int64_t>());
    });
  });
  return {values, ids};
}

TORCH_LIBRARY_IMPL(satin, CPU, m) {
  m.impl("logit_losses", logit_losses);
  m.impl("stored_losses", stored_losses);
  m.impl("top_k", top_k);
}

}  // namespace

void anchor_logit_losses_cpu() {}

}  // namespace satin::ops
