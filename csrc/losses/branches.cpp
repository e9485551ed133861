#include "losses/branches.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "ops/to_device.h"

namespace satin::losses {

at::Tensor branch_positions(int64_t num_tokens) { return at::arange(num_tokens, at::kLong).repeat(2); }

at::Tensor branch_mask(int64_t num_tokens, at::Device device) {
  at::Tensor mask = at::zeros({2 * num_tokens, 2 * num_tokens}, at::TensorOptions().dtype(at::kBool).device(device));
  const at::Tensor all = at::ones({num_tokens, num_tokens}, mask.options());
  mask.narrow(0, 0, num_tokens).narrow(1, 0, num_tokens).copy_(all.tril());
  mask.narrow(0, num_tokens, num_tokens).narrow(1, 0, num_tokens).copy_(all.tril(-1));
  mask.diagonal().fill_(true);
  return mask.view({1, 1, 2 * num_tokens, 2 * num_tokens});
}

ScoredBranches::ScoredBranches(const at::Tensor& scored)
    : num_windows_(scored.size(0)), num_tokens_(scored.size(1)), rows_(scored.reshape(-1).nonzero().squeeze(1)) {
  SATIN_CHECK(scored.is_cpu() && scored.scalar_type() == at::kBool, "scored: [B, T] bool on the CPU");
}

at::Tensor ScoredBranches::rows_of(const at::Tensor& context) const {
  SATIN_CHECK_EQ(context.size(1), 2 * num_tokens_);
  return context.narrow(1, num_tokens_, num_tokens_)
      .reshape({-1, context.size(2)})
      .index_select(0, ops::to_device(rows_, context.device()));
}

at::Tensor ScoredBranches::scatter(const at::Tensor& rows) const {
  at::Tensor all = at::zeros({num_windows_ * num_tokens_, rows.size(1)}, rows.options());
  return all.index_copy_(0, ops::to_device(rows_, rows.device()), rows).view({num_windows_, num_tokens_, -1});
}

}  // namespace satin::losses
