// Branch tokens: neighbours beside the text instead of in it, so that clean and perturbed contexts train in one pass.
// A context of T text tokens and T branch tokens: branch t is another reading of position t. It sees the text before t
// and itself, stands at position t (rotary embedding), and nothing else sees it. Its logits are therefore those at t of
// the text with that one token replaced. Source: own formulation, after the attention masks of token trees (Miao et
// al., SpecInfer, arXiv 2305.09781, section 4.2).
#pragma once
#include <ATen/core/Tensor.h>

namespace satin::losses {

/// [2T] int64 on the CPU: 0 ... T - 1, twice.
at::Tensor branch_positions(int64_t num_tokens);

/// [1, 1, 2T, 2T] bool: which keys (columns) a query (row) sees. Borders of documents are not in it.
at::Tensor branch_mask(int64_t num_tokens, at::Device device);

/// Which branches have a loss, of B windows.
class ScoredBranches {
 public:
  ScoredBranches() = default;
  /// scored [B, T] bool on the CPU.
  explicit ScoredBranches(const at::Tensor& scored);
  bool defined() const { return rows_.defined(); }
  int64_t size() const { return defined() ? rows_.size(0) : 0; }
  /// [B, 2T, H] -> the scored branches' rows [size, H], in order.
  at::Tensor rows_of(const at::Tensor& context) const;
  /// Its transpose: [size, H] -> [B, T, H], 0 elsewhere.
  at::Tensor scatter(const at::Tensor& rows) const;

 private:
  int64_t num_windows_ = 0, num_tokens_ = 0;
  at::Tensor rows_;  ///< [size] int64 on the CPU: b * T + t
};

}  // namespace satin::losses
