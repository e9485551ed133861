// Where the time of some steps goes: `satin train --profile`.
#pragma once
#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace satin::train {

/// What one kind of work took between start and stop.
struct ProfileRow {
  std::string name;  ///< a kernel (CUDA) or an operator (CPU)
  int64_t calls = 0;
  double ms = 0;  ///< on the device; on the CPU without what it calls
};

/// Records operators, and on CUDA kernels, of this thread and of autograd's. One at a time in a process.
class Profile {
 public:
  explicit Profile(at::Device device) : device_(device) {}

  /// For what the device was given.
  void wait() const;
  /// Begins once the device has done what it was given.
  void start();
  /// Ends without a result.
  void abandon();
  /// Ends likewise; writes a trace for chrome://tracing or Perfetto. Rows fall by time.
  /// Errors: UserError when the file cannot be written.
  std::vector<ProfileRow> stop(const std::filesystem::path& trace);

 private:
  at::Device device_;
};

/// The longest rows as a table, with their share of `wall_ms`.
std::string profile_text(const std::vector<ProfileRow>& rows, int64_t num_steps, double wall_ms);

/// Profiles three steps after the first three, which also load kernels and fill caches; what a run does between them
/// (a checkpoint) counts. Logs the table's path. A run that ends in the middle leaves nothing.
class StepProfile {
 public:
  static constexpr int64_t kFirst = 3, kSteps = 3;

  StepProfile(at::Device device, std::filesystem::path trace, std::filesystem::path table)
      : profile_(device), trace_(std::move(trace)), table_(std::move(table)) {}
  ~StepProfile();
  StepProfile(const StepProfile&) = delete;
  StepProfile& operator=(const StepProfile&) = delete;
  /// Around each step of a run. Errors: as of Profile::stop.
  void begin_step();
  void end_step();

 private:
  Profile profile_;
  std::filesystem::path trace_, table_;
  int64_t steps_ = 0;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace satin::train
