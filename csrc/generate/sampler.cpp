#include "generate/sampler.h"

#include "core/error.h"
#include "core/random.h"
#include "ops/step_ends.h"

namespace satin::generate {

void check(const SamplingOptions& options) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature))
    throw UserError(cat("temperature must be a number from 0 (greedy) on, found ", options.temperature));
  if (options.top_k < 0) throw UserError(cat("top_k must be 0 (all tokens) or more, found ", options.top_k));
  if (!(options.top_p > 0 && options.top_p <= 1))
    throw UserError(cat("top_p must be above 0 and at most 1, found ", options.top_p));
}

at::Tensor sample(const at::Tensor& logits, const SamplingOptions& options, int64_t step) {
  SATIN_CHECK_EQ(logits.dim(), 2);
  if (options.temperature == 0) return ops::most_likely(logits);

  auto [sorted, ids] = logits.to(at::kDouble).sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true);
  if (options.top_k > 0 && options.top_k < sorted.size(1)) sorted = sorted.narrow(1, 0, options.top_k);
  const at::Tensor probabilities = at::softmax(sorted / options.temperature, -1);
  const at::Tensor before = probabilities.cumsum(-1) - probabilities;  // mass of the likelier tokens
  const at::Tensor kept = at::where(before < options.top_p, probabilities, 0);
  const at::Tensor cumulative = kept.cumsum(-1);

  std::vector<double> uniforms;
  for (int64_t row = 0; row < logits.size(0); ++row)
    uniforms.push_back(
        to_uniform(counter_hash({options.seed, static_cast<uint64_t>(step), static_cast<uint64_t>(row)})));
  const at::Tensor draws = at::tensor(uniforms, at::kDouble).unsqueeze(1).to(logits.device());
  const at::Tensor target = draws * cumulative.narrow(1, cumulative.size(1) - 1, 1);
  const at::Tensor place = (cumulative <= target).sum(-1, /*keepdim=*/true);  // target < total, so it is in range ...
  const at::Tensor last_kept = (kept > 0).sum(-1, /*keepdim=*/true) - 1;      // ... but for rounding
  return ids.gather(1, at::minimum(place, last_kept)).squeeze(1);
}

}  // namespace satin::generate
