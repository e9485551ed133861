#include "ops/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/error.h"

namespace satin::ops {
namespace {

void check(const AdamWBatch& batch) {
  const at::Tensor& first = batch.items[0].weight;
  const at::ScalarType dtype = first.scalar_type();
  SATIN_CHECK(dtype == at::kFloat || dtype == at::kDouble, "adamw in ", dtype);
  SATIN_CHECK(!batch.skip.defined() || (batch.skip.numel() == 1 && batch.skip.scalar_type() == at::kFloat &&
                                        batch.skip.device() == first.device()),
              "adamw: what skips is one float on ", first.device());
  for (const AdamWBatch::Item& item : batch.items) {
    SATIN_CHECK(item.weight.is_non_overlapping_and_dense(), "adamw: a weight with holes");
    for (const at::Tensor& tensor : {item.weight, item.gradient, item.mean, item.square})
      SATIN_CHECK(tensor.sizes() == item.weight.sizes() && tensor.strides() == item.weight.strides() &&
                      tensor.scalar_type() == dtype && tensor.device() == first.device(),
                  "adamw: expected ", item.weight.sizes(), " ", item.weight.strides(), " ", dtype, " on ",
                  first.device(), ", found ", tensor.sizes(), " ", tensor.strides(), " ", tensor.scalar_type(), " on ",
                  tensor.device());
    for (const auto& [tensor, numel] : {std::pair{item.corrections, 2}, std::pair{item.clip, 1}})
      SATIN_CHECK(
          (!tensor.defined() && numel == 1) || (tensor.numel() == numel && tensor.is_contiguous() &&
                                                tensor.scalar_type() == dtype && tensor.device() == first.device()),
          "adamw: expected ", numel, " numbers in ", dtype, " on ", first.device());
  }
}

template <class T>
void on_cpu(const AdamWBatch& batch) {
  if (batch.skip.defined() && batch.skip.item<float>() != 0) return;
  constexpr int64_t kNumbersATask = 1 << 15;
  for (const kernels::AdamWTask<T>& task : adamw_tasks<T>(batch))
    at::parallel_for(0, task.n, kNumbersATask,
                     [&](int64_t begin, int64_t end) { kernels::adamw_cpu(begin, end, batch.betas, task); });
}

}  // namespace

void adamw(const AdamWBatch& batch) {
  if (batch.items.empty()) return;
  check(batch);
  for (const AdamWBatch::Item& item : batch.items) item.weight.unsafeGetTensorImpl()->bump_version();
  const at::Tensor& first = batch.items[0].weight;
  if (first.is_cuda())
    adamw_on_cuda(batch);
  else if (first.scalar_type() == at::kDouble)
    on_cpu<double>(batch);
  else
    on_cpu<float>(batch);
}

}  // namespace satin::ops
