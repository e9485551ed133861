// A step of AdamW on many tensors (kernels/adamw.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/adamw.h"

namespace satin::ops {

/// Tensors of one dtype (float or double) and device, dense in memory and each with the strides of its weight.
struct AdamWBatch {
  struct Item {
    at::Tensor weight, gradient, mean, square;
    at::Tensor corrections;  ///< [2], contiguous
    at::Tensor clip;         ///< a number, or undefined
    double rate, decay;
  };
  std::vector<Item> items;
  kernels::AdamWBetas betas;
  at::Tensor skip;  ///< a float, or undefined
};

/// Updates weights, means and squares; on CUDA without waiting. Throws InternalError for what does not agree.
void adamw(const AdamWBatch& batch);

/// The kernel.
void adamw_on_cuda(const AdamWBatch& batch);

/// The kernels' view of the items.
template <class T>
std::vector<kernels::AdamWTask<T>> adamw_tasks(const AdamWBatch& batch) {
  std::vector<kernels::AdamWTask<T>> tasks;
  for (const AdamWBatch::Item& item : batch.items)
    tasks.push_back({item.weight.numel(), item.weight.mutable_data_ptr<T>(), item.gradient.const_data_ptr<T>(),
                     item.mean.mutable_data_ptr<T>(), item.square.mutable_data_ptr<T>(),
                     item.corrections.const_data_ptr<T>(),
                     item.clip.defined() ? item.clip.const_data_ptr<T>() : nullptr, item.rate, item.decay});
  return tasks;
}

}  // namespace satin::ops
