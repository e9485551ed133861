// What the quantizers of a model are doing, cheap enough to log: who is clipped, whose codes keep changing, which
// levels are used.
#pragma once
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "quant/registry.h"

namespace satin::quant {

struct LayerHealth {
  std::string name;
  int64_t num_weights = 0;
  double clipped = 0;          ///< share of the weights outside the grid's range: they get no gradient
  double changed = 0;          ///< share of the codes that were others at the last measurement (0 at the first)
  double scale_drift = 0;      ///< mean of |stored scale / the one at the first measurement - 1|
  std::vector<double> levels;  ///< share of the weights on each level, lowest first; empty above 4 bits
};

/// Means over all weights.
struct HealthSummary {
  double clipped = 0, changed = 0, scale_drift = 0;
};
HealthSummary summary(const std::vector<LayerHealth>& layers);

class HealthMonitor {
 public:
  /// The registry outlives the monitor. A resumed run measures anew, and so does a layer whose bits
  /// have changed: changes and drift count from there.
  explicit HealthMonitor(const Registry& registry) : registry_(registry) {}

  /// Every layer as it is now. Keeps the codes, a byte a weight, for the next call; waits for the device once. The
  /// first call is what later ones compare with. `shards`: processes that own layers together by rows; each gets the
  /// health of the whole layers.
  std::vector<LayerHealth> measure(dist::Communicator* shards = nullptr);

 private:
  void sum_over(dist::Communicator& shards, std::vector<LayerHealth>& layers) const;

  struct Last {
    at::Tensor codes, first_scale;
    int bits = 0;
  };
  const Registry& registry_;
  std::vector<Last> last_;
};

struct HealthWarning {
  std::string layer, text;
};
/// What a person should look at: nearly all weights on one level, a level that nothing uses (at most 2 bits), many
/// clipped, or codes that still change late in training (`progress` in [0, 1]). Empty when all is well.
std::vector<HealthWarning> health_warnings(const std::vector<LayerHealth>& layers, double progress);

}  // namespace satin::quant
