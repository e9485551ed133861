#include "train/profile.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "ops/device.h"

namespace satin::train {
namespace {

namespace kineto = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

std::vector<ProfileRow> sorted(std::map<std::string, ProfileRow>&& by_name) {
  std::vector<ProfileRow> rows;
  for (auto& [name, row] : by_name) {
    row.name = name;
    rows.push_back(std::move(row));
  }
  std::ranges::stable_sort(rows, [](const ProfileRow& a, const ProfileRow& b) { return a.ms > b.ms; });
  return rows;
}

void add(std::map<std::string, ProfileRow>& rows, const std::string& name, double ns) {
  ProfileRow& row = rows[name];
  ++row.calls;
  row.ms += ns * 1e-6;
}

/// Operators call each other: each has its own time, less that of what it called on its thread.
std::map<std::string, ProfileRow> cpu_rows(const std::vector<kineto::KinetoEvent>& events) {
  std::vector<const kineto::KinetoEvent*> ordered;
  for (const auto& event : events)
    if (event.deviceType() == c10::DeviceType::CPU && !event.isAsync()) ordered.push_back(&event);
  std::ranges::stable_sort(ordered, [](const auto* a, const auto* b) {
    if (a->startThreadId() != b->startThreadId()) return a->startThreadId() < b->startThreadId();
    if (a->startNs() != b->startNs()) return a->startNs() < b->startNs();
    return a->endNs() > b->endNs();
  });
  std::map<std::string, ProfileRow> rows;
  std::vector<const kineto::KinetoEvent*> open;
  for (const auto* event : ordered) {
    while (!open.empty() &&
           (open.back()->startThreadId() != event->startThreadId() || open.back()->endNs() <= event->startNs()))
      open.pop_back();
    if (!open.empty()) rows[open.back()->name()].ms -= static_cast<double>(event->durationNs()) * 1e-6;
    add(rows, event->name(), static_cast<double>(event->durationNs()));
    open.push_back(event);
  }
  return rows;
}

std::map<std::string, ProfileRow> device_rows(const std::vector<kineto::KinetoEvent>& events) {
  std::map<std::string, ProfileRow> rows;
  for (const auto& event : events)
    if (event.deviceType() == c10::DeviceType::CUDA) add(rows, event.name(), static_cast<double>(event.durationNs()));
  return rows;
}

}  // namespace

void Profile::wait() const { ops::synchronize(device_); }

void Profile::start() {
  wait();
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (device_.is_cuda()) activities.insert(ActivityType::CUDA);
  const ProfilerConfig config(ProfilerState::KINETO);
  kineto::prepareProfiler(config, activities);
  kineto::enableProfiler(config, activities);
}

void Profile::abandon() { kineto::disableProfiler(); }

std::vector<ProfileRow> Profile::stop(const std::filesystem::path& trace) {
  wait();
  const auto result = kineto::disableProfiler();
  result->save(trace.string());
  std::error_code error;
  if (std::filesystem::file_size(trace, error) == 0 || error)
    throw UserError(cat(trace.string(), ": the trace could not be written: is the disk full?"));
  return sorted(device_.is_cuda() ? device_rows(result->events()) : cpu_rows(result->events()));
}

std::string profile_text(const std::vector<ProfileRow>& rows, int64_t num_steps, double wall_ms) {
  constexpr size_t kRows = 40, kName = 90;
  const auto line = [](const char* ms, const char* share, const char* calls, const std::string& name) {
    char text[256];
    std::snprintf(text, sizeof text, "%10s %7s %7s  %s\n", ms, share, calls, name.substr(0, kName).c_str());
    return std::string(text);
  };
  const auto number = [](double value, int digits) {
    char text[32];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return std::string(text);
  };
  const double steps = static_cast<double>(num_steps);
  double total = 0;
  for (const ProfileRow& row : rows) total += row.ms;
  const auto share = [&](double ms) { return number(100 * ms / wall_ms, 1) + "%"; };
  std::string text = cat(num_steps, " steps of ", number(wall_ms / steps, 2), " ms; work of ", number(total / steps, 2),
                         " ms a step:\n") +
                     line("ms/step", "share", "calls", "name");
  for (size_t i = 0; i < std::min(rows.size(), kRows); ++i)
    text += line(number(rows[i].ms / steps, 3).c_str(), share(rows[i].ms).c_str(),
                 number(static_cast<double>(rows[i].calls) / steps, 0).c_str(), rows[i].name);
  return text;
}

StepProfile::~StepProfile() {
  if (steps_ >= kFirst && steps_ < kFirst + kSteps && start_ != decltype(start_){}) profile_.abandon();
}

void StepProfile::begin_step() {
  if (steps_ != kFirst) return;
  profile_.start();
  start_ = std::chrono::steady_clock::now();
}

void StepProfile::end_step() {
  if (++steps_ != kFirst + kSteps) return;
  profile_.wait();
  const double wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  const auto rows = profile_.stop(trace_);
  write_file_atomically(table_, profile_text(rows, kSteps, wall_ms));
  log_info(cat("profiled steps ", kFirst + 1, " to ", kFirst + kSteps, ": ", table_.string(), ", ", trace_.string()));
}

}  // namespace satin::train
