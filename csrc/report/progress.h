// The live line of a training run.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace satin::report {

struct Progress {
  int64_t step = 0, total_steps = 0;
  double loss = 0;
  double tokens_per_second = 0;    ///< 0: not known yet
  std::optional<double> mfu = {};  ///< share of the device's peak; absent when that is not known
  int64_t memory_bytes = 0;        ///< 0: not measured
  std::optional<double> remaining_s = {};
};

/// "step 120/1000 (12%)  loss 2.3456  148k tokens/s  MFU 47.1%  12.3 GiB  ETA 1h 02m"; what is not known is left out.
std::string progress_line(const Progress& progress);
/// Hands the line to satin::progress (rewritten on a terminal, now and then a plain line elsewhere).
void show_progress(const Progress& progress);

/// "packing 45%", as show_progress.
void show_part_done(const std::string& work, double part);

/// "4s", "3m 20s", "1h 02m", "2d 03h".
std::string duration_text(double seconds);
/// "512 B", "1.5 KiB", "12.3 GiB".
std::string bytes_text(int64_t bytes);
/// "950", "12.3k", "4.56M", "1.20B".
std::string count_text(double count);

}  // namespace satin::report
