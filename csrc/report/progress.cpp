#include "report/progress.h"

#include <array>
#include <cmath>

#include "core/error.h"
#include "core/log.h"

namespace satin::report {
namespace {

std::string two_digits(int64_t value) { return cat(value < 10 ? "0" : "", value); }

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const int64_t s = std::llround(std::min(seconds, 1e12));
  if (s < 60) return cat(s, "s");
  if (s < 3600) return cat(s / 60, "m ", two_digits(s % 60), "s");
  if (s < 86400) return cat(s / 3600, "h ", two_digits(s % 3600 / 60), "m");
  return cat(s / 86400, "d ", two_digits(s % 86400 / 3600), "h");
}

std::string bytes_text(int64_t bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; std::abs(value) >= 1023.95 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return cat(fixed(value, unit == 0 ? 0 : 1), " ", kUnits[unit]);
}

std::string count_text(double count) {
  static constexpr std::array kUnits = {"", "k", "M", "B", "T"};
  size_t unit = 0;
  for (; std::abs(count) >= 999.5 && unit + 1 < kUnits.size(); ++unit) count /= 1000;
  return fixed(count, unit == 0 || std::abs(count) >= 99.95 ? 0 : std::abs(count) >= 9.995 ? 1 : 2) + kUnits[unit];
}

std::string progress_line(const Progress& progress) {
  std::string line = cat("step ", progress.step, "/", progress.total_steps);
  if (progress.total_steps > 0) line += cat(" (", 100 * progress.step / progress.total_steps, "%)");
  line += "  loss " + fixed(progress.loss, 4);
  if (progress.tokens_per_second > 0) line += "  " + count_text(progress.tokens_per_second) + " tokens/s";
  if (progress.mfu) line += "  MFU " + fixed(100 * *progress.mfu, 1) + "%";
  if (progress.memory_bytes > 0) line += "  " + bytes_text(progress.memory_bytes);
  if (progress.remaining_s) line += "  ETA " + duration_text(*progress.remaining_s);
  return line;
}

void show_progress(const Progress& progress) { satin::progress(progress_line(progress)); }

void show_part_done(const std::string& work, double part) {
  satin::progress(cat(work, " ", static_cast<int>(100 * part), "%"));
}

}  // namespace satin::report
