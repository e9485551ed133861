#include "nn/visibility.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "ops/device.h"
#include "ops/to_device.h"

namespace satin::nn {
namespace {

/// Undefined starts: ids that fall, or that only the device knows.
Documents documents_of(const at::Tensor& ids, at::Device device) {
  if (!ids.is_cpu() || ids.numel() == 0) return {};
  const at::Tensor host = ids.contiguous();
  const int64_t* const id = host.const_data_ptr<int64_t>();
  const int64_t length = host.size(1);
  std::vector<int32_t> starts;
  for (int64_t i = 0; i < host.numel(); ++i) {
    const bool first = i % length == 0;
    if (!first && id[i] < id[i - 1]) return {};
    if (first || id[i] != id[i - 1]) starts.push_back(static_cast<int32_t>(i));
  }
  starts.push_back(static_cast<int32_t>(host.numel()));
  Documents documents;
  documents.num_tokens = host.numel();
  for (size_t d = 1; d < starts.size(); ++d)
    documents.longest = std::max<int64_t>(documents.longest, starts[d] - starts[d - 1]);
  documents.starts = ops::to_device(at::tensor(starts, at::kInt), device);
  return documents;
}

}  // namespace

bool takes_documents(at::Device device, at::ScalarType dtype, int64_t head_dim) {
  if (!device.is_cuda() || (dtype != at::kBFloat16 && dtype != at::kHalf)) return false;
  const bool has_kernel = !at::hasCUDA() || ops::compute_capability(device) >= 80;  // one that is planned for has it
  return has_kernel && head_dim % 8 == 0 && head_dim <= 256 && at::globalContext().userEnabledFlashSDP();
}

Visibility visibility(int64_t num_tokens, int64_t past, const at::Tensor& document_ids, at::Device device,
                      bool by_length) {
  SATIN_CHECK(past == 0 || !document_ids.defined(), "document_ids with a cache");
  if (document_ids.defined()) {
    SATIN_CHECK(document_ids.dim() == 2 && document_ids.size(1) == num_tokens, "document_ids ", document_ids.sizes(),
                " of ", num_tokens, " tokens a sequence");
    if (by_length)
      if (Documents documents = documents_of(document_ids, device); documents.starts.defined())
        return {true, {}, std::move(documents)};
    const at::Tensor ids = document_ids.to(device, /*non_blocking=*/true);
    const at::Tensor causal =
        at::ones({num_tokens, num_tokens}, at::TensorOptions().dtype(at::kBool).device(device)).tril();
    return {false, (ids.unsqueeze(2) == ids.unsqueeze(1)).logical_and_(causal).unsqueeze(1)};
  }
  if (past == 0) return {true};
  if (num_tokens == 1) return {false};
  const at::Tensor all =
      at::ones({1, 1, num_tokens, past + num_tokens}, at::TensorOptions().dtype(at::kBool).device(device));
  return {false, all.tril(past)};
}

Visibility additive(const Visibility& visible, at::ScalarType dtype) {
  if (!visible.mask.defined()) return visible;
  const at::Tensor hidden = visible.mask.logical_not();
  return {visible.causal, at::zeros(hidden.sizes(), hidden.options().dtype(dtype)).masked_fill_(hidden, -INFINITY)};
}

}  // namespace satin::nn
