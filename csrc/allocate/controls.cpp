#include "allocate/controls.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace satin::allocate {
namespace {

int64_t budget_of(const std::vector<Layer>& layers, double mean_bits) {
  int64_t num_parameters = 0;
  for (const Layer& layer : layers) num_parameters += layer.num_parameters;
  return static_cast<int64_t>(std::floor(mean_bits * static_cast<double>(num_parameters) + 1e-6));
}

Allocation summed(const std::vector<Layer>& layers, std::vector<size_t> chosen) {
  Allocation found{std::move(chosen), 0, 0};
  for (size_t i = 0; i < layers.size(); ++i) {
    const Choice& choice = layers[i].choices[found.chosen[i]];
    found.sensitivity += choice.sensitivity;
    found.total_bits += choice.bits * layers[i].num_parameters;
  }
  return found;
}

size_t find_bits(const Layer& layer, int bits) {
  return static_cast<size_t>(std::find_if(layer.choices.begin(), layer.choices.end(),
                                          [&](const Choice& choice) { return choice.bits == bits; }) -
                             layer.choices.begin());
}

}  // namespace

Allocation uniform_bits(const std::vector<Layer>& layers, double mean_bits) {
  const int64_t budget = budget_of(layers, mean_bits);
  for (int bits = 8; bits > 0; --bits) {
    std::vector<size_t> chosen;
    for (const Layer& layer : layers) chosen.push_back(find_bits(layer, bits));
    bool there = true;
    for (size_t i = 0; i < layers.size(); ++i) there = there && chosen[i] < layers[i].choices.size();
    if (!there) continue;
    if (const Allocation found = summed(layers, chosen); found.total_bits <= budget) return found;
  }
  throw UserError(cat("allocate.average_bits: ", mean_bits, " is less than the fewest bits of the candidates"));
}

Allocation random_bits(const std::vector<Layer>& layers, double mean_bits, uint64_t seed) {
  const int64_t budget = budget_of(layers, mean_bits);
  std::vector<std::vector<size_t>> rising;  // each layer's choices, fewest bits first
  std::vector<size_t> chosen, level(layers.size(), 0);
  for (const Layer& layer : layers) {
    std::vector<size_t> order(layer.choices.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return layer.choices[a].bits < layer.choices[b].bits; });
    chosen.push_back(order.front());
    rising.push_back(std::move(order));
  }
  Allocation found = summed(layers, chosen);
  if (found.total_bits > budget)
    throw UserError(cat("allocate.average_bits: ", mean_bits, " is less than the fewest bits of the candidates"));
  std::vector<size_t> open(layers.size());  // layers that may still rise
  std::iota(open.begin(), open.end(), 0);
  for (uint64_t draw = 0; !open.empty(); ++draw) {
    const size_t at = to_index(counter_hash({seed, draw}), open.size());
    const size_t layer = open[at];
    std::vector<size_t> next = found.chosen;
    if (level[layer] + 1 < rising[layer].size()) next[layer] = rising[layer][level[layer] + 1];
    const Allocation more = summed(layers, next);
    if (next == found.chosen || more.total_bits > budget) {
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
      continue;
    }
    ++level[layer];
    found = more;
  }
  return found;
}

}  // namespace satin::allocate
