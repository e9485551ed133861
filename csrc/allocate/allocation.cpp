#include "allocate/allocation.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace satin::allocate {
namespace {

/// An allocation of the layers so far.
struct State {
  int64_t bits;
  double sensitivity;
  size_t before, choice;  ///< index into the states of the layer before, and of this layer's choices
};

/// Fewest bits first; each later one has a lower sum than all before it.
std::vector<State> undominated(std::vector<State> states) {
  std::stable_sort(states.begin(), states.end(), [](const State& a, const State& b) {
    return a.bits != b.bits ? a.bits < b.bits : a.sensitivity < b.sensitivity;
  });
  std::vector<State> kept;
  for (const State& state : states)
    if (kept.empty() || state.sensitivity < kept.back().sensitivity) kept.push_back(state);
  return kept;
}

}  // namespace

Allocation allocate_bits(const std::vector<Layer>& layers, double mean_bits) {
  int64_t num_parameters = 0, fewest = 0;
  std::vector<int64_t> fewest_after(layers.size() + 1, 0);  // bits that layers i ... cannot do without
  for (size_t i = layers.size(); i-- > 0;) {
    SATIN_CHECK(!layers[i].choices.empty(), "layer ", i, " has no choices");
    const auto least = std::min_element(layers[i].choices.begin(), layers[i].choices.end(),
                                        [](const Choice& a, const Choice& b) { return a.bits < b.bits; });
    num_parameters += layers[i].num_parameters;
    fewest += least->bits * layers[i].num_parameters;
    fewest_after[i] = fewest;
  }
  const auto budget = static_cast<int64_t>(std::floor(mean_bits * static_cast<double>(num_parameters) + 1e-6));
  if (fewest > budget)
    throw UserError(cat("allocate.average_bits: ", mean_bits, " is less than the fewest bits of the candidates, ",
                        static_cast<double>(fewest) / static_cast<double>(std::max<int64_t>(1, num_parameters))));
  std::vector<std::vector<State>> states{{{0, 0, 0, 0}}};
  for (size_t i = 0; i < layers.size(); ++i) {
    std::vector<State> next;
    for (size_t from = 0; from < states.back().size(); ++from)
      for (size_t choice = 0; choice < layers[i].choices.size(); ++choice) {
        const State& state = states.back()[from];
        const int64_t bits = state.bits + layers[i].choices[choice].bits * layers[i].num_parameters;
        if (bits + fewest_after[i + 1] <= budget)
          next.push_back({bits, state.sensitivity + layers[i].choices[choice].sensitivity, from, choice});
      }
    states.push_back(undominated(std::move(next)));
  }
  const State& best = states.back().back();
  Allocation found{std::vector<size_t>(layers.size()), best.sensitivity, best.bits};
  size_t at = states.back().size() - 1;
  for (size_t i = layers.size(); i-- > 0;) {
    found.chosen[i] = states[i + 1][at].choice;
    at = states[i + 1][at].before;
  }
  return found;
}

}  // namespace satin::allocate
