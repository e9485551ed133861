#include "losses/top_k.h"

#include "core/error.h"

namespace satin::losses {
namespace {

/// Ids of everything above each row's threshold [N, 1] and, of what equals it, the lowest ids: k in all.
at::Tensor ids_at(const at::Tensor& logits, const at::Tensor& threshold, int64_t k) {
  const int64_t V = logits.size(1);
  const auto options = logits.options().dtype(at::kFloat);
  at::Tensor rank = at::arange(V, 0, -1, options) * (logits == threshold);  // in fp32 exact up to 2^24
  rank.masked_fill_(logits > threshold, static_cast<double>(V) + 1);
  return std::get<1>(at::topk(rank, k, 1));
}

}  // namespace

TopK top_k(const at::Tensor& logits, int64_t k) {
  const int64_t V = logits.size(1);
  SATIN_CHECK(k >= 1 && k <= V && V <= (int64_t{1} << 24), "top ", k, " of ", V);
  auto [values, ids] = at::topk(logits, std::min(k + 1, V), 1);
  if (k < V) {
    const at::Tensor threshold = values.narrow(1, k - 1, 1);
    // Only a tie across the border leaves the set open; to ask for it is free on the CPU alone.
    const bool open = !logits.is_cpu() || (threshold == values.narrow(1, k, 1)).any().item<bool>();
    ids = open ? ids_at(logits, threshold, k) : ids.narrow(1, 0, k);
  }
  ids = std::get<0>(ids.sort(1));
  auto [sorted, order] = logits.gather(1, ids).sort(/*stable=*/true, 1, /*descending=*/true);
  return {sorted, ids.gather(1, order)};
}

}  // namespace satin::losses
