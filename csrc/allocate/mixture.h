// Calibration text that excites layers as the task does: a share of general text in it, chosen by activation energies.
// Source: TASA (arXiv 2607.00908): h(D) = [|X_1|^2, ..., |X_L|^2] of the layers' inputs, the share of greatest
// cos(h(mixture), h(task)). Energies add up, so that two passes give every mixture.
#pragma once
#include <vector>

namespace satin::allocate {

struct Mixture {
  double general_share;              ///< of the best, within [.25, .75]
  std::vector<double> shares = {};   ///< 0, .25, ... 1
  std::vector<double> cosines = {};  ///< of each
};

/// Energies [L] a token of general text, of the task's text, and of other text of the task (the reference).
Mixture best_mixture(const std::vector<double>& general, const std::vector<double>& task,
                     const std::vector<double>& reference);

}  // namespace satin::allocate
