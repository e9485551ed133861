#include "allocate/mixture.h"

#include <cmath>

#include "core/error.h"

namespace satin::allocate {

Mixture best_mixture(const std::vector<double>& general, const std::vector<double>& task,
                     const std::vector<double>& reference) {
  SATIN_CHECK(general.size() == reference.size() && task.size() == reference.size(), "energies of other layers");
  Mixture found{0.25};
  double best = -2;
  for (const double share : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    double product = 0, mixed_square = 0, reference_square = 0;
    for (size_t i = 0; i < general.size(); ++i) {
      const double mixed = share * general[i] + (1 - share) * task[i];
      product += mixed * reference[i];
      mixed_square += mixed * mixed;
      reference_square += reference[i] * reference[i];
    }
    const double cosine = product / std::sqrt(mixed_square * reference_square);
    found.shares.push_back(share);
    found.cosines.push_back(cosine);
    if (share < 0.25 || share > 0.75 || !(cosine > best)) continue;
    best = cosine;
    found.general_share = share;
  }
  return found;
}

}  // namespace satin::allocate
