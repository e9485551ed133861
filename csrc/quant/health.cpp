#include "quant/health.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "core/error.h"
#include "quant/column_limits.h"

namespace satin::quant {
namespace {

constexpr int kMostBitsWithLevels = 4;
constexpr double kNearlyAll = 0.995, kManyClipped = 0.5, kManyChanged = 0.15;

int num_levels(const Scheme& scheme) {
  if (scheme.bits > kMostBitsWithLevels) return 0;
  return scheme.has_three_levels() ? 3 : 1 << scheme.bits;
}

}  // namespace

HealthSummary summary(const std::vector<LayerHealth>& layers) {
  HealthSummary mean;
  double total = 0;
  for (const LayerHealth& layer : layers) {
    const auto weights = static_cast<double>(layer.num_weights);
    mean.clipped += weights * layer.clipped;
    mean.changed += weights * layer.changed;
    mean.scale_drift += weights * layer.scale_drift;
    total += weights;
  }
  if (total == 0) return {};
  return {mean.clipped / total, mean.changed / total, mean.scale_drift / total};
}

void HealthMonitor::sum_over(dist::Communicator& shards, std::vector<LayerHealth>& layers) const {
  std::vector<double> sums;
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerHealth& layer = layers[i];
    // A layer that is not split is the same everywhere.
    const double weights = static_cast<double>(layer.num_weights) /
                           (registry_.modules()[i].linear->is_split() ? 1.0 : static_cast<double>(shards.size()));
    sums.insert(sums.end(), {weights, weights * layer.clipped, weights * layer.changed, weights * layer.scale_drift});
    for (double level : layer.levels) sums.push_back(weights * level);
  }
  sums = shards.sum(sums);
  const double* next = sums.data();
  for (LayerHealth& layer : layers) {
    const double weights = *next++;
    layer.num_weights = static_cast<int64_t>(weights);
    for (double* share : {&layer.clipped, &layer.changed, &layer.scale_drift}) *share = *next++ / weights;
    for (double& level : layer.levels) level = *next++ / weights;
  }
}

std::vector<LayerHealth> HealthMonitor::measure(dist::Communicator* shards) {
  const at::NoGradGuard no_grad;
  const bool first = last_.empty();
  last_.resize(registry_.modules().size());
  std::vector<at::Tensor> counts, drifts;  // on the device; copied once at the end
  for (size_t i = 0; i < last_.size(); ++i) {
    const QuantLinear& linear = *registry_.modules()[i].linear;
    const at::Tensor weight = linear.master_weight().detach();
    const LimitedWeight in = limited(weight, linear.state(), linear.scheme());
    const at::Tensor scale = in.state.scale.detach();
    const auto zero_point = in.state.zero_point.defined() ? std::optional(in.state.zero_point.detach()) : std::nullopt;
    const ops::FakeQuantCodes now = ops::fake_quant_codes(in.weight, scale, zero_point, linear.grid());
    // The gradient of a sum of weights is 1 inside the range and 0 where clipped.
    at::Tensor inside =
        ops::fake_quant_backward(at::ones_like(weight), in.weight, scale, zero_point, linear.grid()).weight;
    if (in.inside.defined()) inside = inside * in.inside;
    counts.push_back(at::count_nonzero(inside));
    counts.push_back(first || last_[i].bits != linear.scheme().bits ? at::zeros({}, counts.back().options())
                                                                    : now.codes.ne(last_[i].codes).sum());
    for (int level = 0; level < num_levels(linear.scheme()); ++level) counts.push_back(now.codes.eq(level).sum());
    if (first || last_[i].bits != linear.scheme().bits) last_[i].first_scale = now.scale;
    drifts.push_back((now.scale / last_[i].first_scale - 1).abs().mean().to(at::kFloat));  // stored scales are above 0
    last_[i].codes = now.codes;
    last_[i].bits = linear.scheme().bits;
  }
  std::vector<LayerHealth> layers;
  if (counts.empty()) return layers;
  const at::Tensor all_counts = at::stack(counts).cpu(), all_drifts = at::stack(drifts).cpu();
  const int64_t* next = all_counts.const_data_ptr<int64_t>();
  for (size_t i = 0; i < last_.size(); ++i) {
    const QuantizedModule& module = registry_.modules()[i];
    LayerHealth layer;
    layer.name = module.name;
    layer.num_weights = module.linear->master_weight().numel();
    const auto share = [&](int64_t count) {
      return static_cast<double>(count) / static_cast<double>(std::max<int64_t>(1, layer.num_weights));
    };
    layer.clipped = 1 - share(*next++);
    layer.changed = share(*next++);
    layer.scale_drift = all_drifts[static_cast<int64_t>(i)].item<double>();
    for (int level = 0; level < num_levels(module.linear->scheme()); ++level) layer.levels.push_back(share(*next++));
    layers.push_back(std::move(layer));
  }
  if (shards && shards->size() > 1) sum_over(*shards, layers);
  return layers;
}

std::vector<HealthWarning> health_warnings(const std::vector<LayerHealth>& layers, double progress) {
  std::vector<HealthWarning> found;
  const auto percent = [](double share) { return cat(fixed(100 * share, 1), " %"); };
  for (const LayerHealth& layer : layers) {
    const auto say = [&](const auto&... parts) { found.push_back({layer.name, cat(parts...)}); };
    const auto most = std::max_element(layer.levels.begin(), layer.levels.end());
    const auto unused = std::find(layer.levels.begin(), layer.levels.end(), 0.0);
    if (most != layer.levels.end() && *most > kNearlyAll)
      say(percent(*most), " of the weights are on one level; the layer is nearly dead");
    else if (layer.levels.size() <= 4 && unused != layer.levels.end())
      say("level ", unused - layer.levels.begin(), " of ", layer.levels.size(), " is used by no weight");
    if (layer.clipped > kManyClipped) say(percent(layer.clipped), " of the weights are clipped and get no gradient");
    if (progress > 0.5 && layer.changed > kManyChanged)
      say(percent(layer.changed),
          " of the codes changed since the last measurement, late in training: they oscillate; "
          "lower the learning rate");
  }
  return found;
}

}  // namespace satin::quant
