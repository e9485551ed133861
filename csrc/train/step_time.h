// Where the time of training steps goes, on each process of a job.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "dist/sharing.h"

namespace satin::train {

/// Milliseconds a step, on one process: what it computed, stood still for other processes (communication that nothing
/// hid, and their lateness), and waited for data.
struct StepShares {
  double compute_ms = 0, communication_ms = 0, data_ms = 0;
};

class StepTime {
 public:
  explicit StepTime(const dist::Sharing& sharing) : sharing_(sharing) {}

  void begin();
  void data_is_here();
  /// The step's last work is queued. What the device has still to do falls into the next step's time, unless the caller
  /// waits for it before (as before every take()).
  void end();

  /// Means over the steps since the last take(), of every process in the ranks' order. All processes call it together.
  std::vector<StepShares> take();
  /// The means over all steps that were taken, but for the first take(), whose steps start the program up.
  std::vector<StepShares> mean() const;

 private:
  const dist::Sharing& sharing_;
  double begin_s_ = 0, waited_s_ = 0;
  double total_s_ = 0, communication_s_ = 0, data_s_ = 0;
  int64_t num_steps_ = 0;

  std::vector<StepShares> sums_;
  int64_t num_takes_ = 0, num_summed_ = 0;
};

/// {"compute_ms": mean over processes, "communication_ms", "data_ms"}; of several processes also {"ranks":
/// {"compute_ms": [a number a rank], ...}}.
nlohmann::ordered_json step_time_json(const std::vector<StepShares>& ranks);
/// One line: the mean, and of several processes the one that others waited for most.
std::string step_time_text(const std::vector<StepShares>& ranks);

}  // namespace satin::train
