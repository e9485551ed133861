#include "eval/perturb.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace satin::eval {

Perturb::Perturb(int64_t num_tokens, const std::vector<int32_t>& special_ids, uint64_t seed) : seed_(seed) {
  for (int64_t id = 0; id < num_tokens; ++id)
    if (std::find(special_ids.begin(), special_ids.end(), id) == special_ids.end()) drawable_.push_back(id);
  if (drawable_.size() < 2)
    throw UserError(
        cat("robustness: expected two tokens that are not special, found ", drawable_.size(), " among ", num_tokens));
}

bool Perturb::is_special(int64_t id) const { return !std::binary_search(drawable_.begin(), drawable_.end(), id); }

int64_t Perturb::another(int64_t id, uint64_t hash) const {
  const auto own = static_cast<uint64_t>(std::lower_bound(drawable_.begin(), drawable_.end(), id) - drawable_.begin());
  const uint64_t pick = to_index(hash, drawable_.size() - 1);
  return drawable_[pick < own ? pick : pick + 1];
}

at::Tensor Perturb::substitute(const at::Tensor& inputs, int64_t first_window, double rate) const {
  at::Tensor substituted = inputs.clone();
  auto ids = substituted.accessor<int64_t, 2>();
  for (int64_t b = 0; b < ids.size(0); ++b)
    for (int64_t t = 0; t < ids.size(1); ++t) {
      const auto hash = [&](Stream stream) {
        return counter_hash({stream, seed_, static_cast<uint64_t>(first_window + b), static_cast<uint64_t>(t)});
      };
      if (!is_special(ids[b][t]) && to_uniform(hash(kReplaces)) < rate)
        ids[b][t] = another(ids[b][t], hash(kReplacement));
    }
  return substituted;
}

Perturb::OneToken Perturb::one_token(const at::Tensor& inputs, int64_t first_window) const {
  OneToken one{inputs.clone(), {}};
  auto ids = one.inputs.accessor<int64_t, 2>();
  for (int64_t b = 0; b < ids.size(0); ++b) {
    const auto window = static_cast<uint64_t>(first_window + b);
    std::vector<int64_t> ordinary;
    for (int64_t t = 0; t < ids.size(1); ++t)
      if (!is_special(ids[b][t])) ordinary.push_back(t);
    if (ordinary.empty()) {
      one.positions.push_back(ids.size(1));
      continue;
    }
    one.positions.push_back(ordinary[to_index(counter_hash({kOnePosition, seed_, window}), ordinary.size())]);
    int64_t& id = ids[b][one.positions.back()];
    id = another(id, counter_hash({kOneReplacement, seed_, window}));
  }
  return one;
}

at::Tensor Perturb::noise(int64_t window, int64_t num_tokens, int64_t hidden_size) const {
  at::Generator generator =
      at::make_generator<at::CPUGeneratorImpl>(counter_hash({kNoise, seed_, static_cast<uint64_t>(window)}));
  return at::randn({num_tokens, hidden_size}, generator, at::TensorOptions().dtype(at::kFloat));
}

}  // namespace satin::eval
