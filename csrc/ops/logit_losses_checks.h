// What both bindings of logit_losses.h check before they hand pointers to a kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "kernels/logit_losses.h"

namespace satin::ops {

/// The dispatcher passes plain numbers.
kernels::LogitLosses make_losses(at::ArrayRef<double> numbers, int64_t divergence, int64_t top_k, int64_t num_tokens);

/// Inputs as kernels take them: contiguous, on one device.
struct LogitLossInputs {
  kernels::Extent extent;
  at::Tensor student, teacher, targets, weights;
  at::Tensor values;  ///< uninitialised, [kNumLogitLosses, N]

  /// Throws InternalError naming what does not fit.
  LogitLossInputs(const kernels::LogitLosses& losses, const at::Tensor& student,
                  const std::optional<at::Tensor>& teacher, const at::Tensor& targets, const at::Tensor& weights,
                  const at::Tensor& grad);
  /// Without a teacher.
  LogitLossInputs(const at::Tensor& student, const at::Tensor& targets, const at::Tensor& weights,
                  const at::Tensor& grad);
  const void* teacher_data() const { return teacher.defined() ? teacher.const_data_ptr() : nullptr; }
};

/// A stored teacher's tensors, contiguous. Throws InternalError naming what does not fit the student's.
struct StoredTensors {
  at::Tensor ids, logits, log_rest, log_mass;
  StoredTensors(const at::Tensor& student, const at::Tensor& ids, const at::Tensor& logits, const at::Tensor& log_rest,
                const at::Tensor& log_mass);
  kernels::StoredTopK pointers() const;
};

/// The extent of top_k's logits. Throws InternalError naming what does not fit.
kernels::Extent top_k_extent(const at::Tensor& logits, int64_t k);

}  // namespace satin::ops
