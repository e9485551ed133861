// Counts collectives while they run, for the watchdog's thread, and how long the computing one stood still for them.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "dist/communicator.h"

namespace satin::dist {

struct Meter {
  virtual ~Meter() = default;
  virtual bool outstanding() = 0;
  virtual double waited_s() = 0;  ///< see Communicator
  std::atomic<int64_t> entered{0};
};

/// The meters of a group and its duplicates: one list, shared by all of them.
class Meters {
 public:
  void add(std::shared_ptr<Meter> meter) {
    const std::lock_guard lock(mutex_);
    meters_.push_back(std::move(meter));
  }
  std::vector<GroupProgress> read() {
    const std::lock_guard lock(mutex_);
    std::vector<GroupProgress> progress;
    for (const auto& meter : meters_) progress.push_back({meter->entered.load(), meter->outstanding()});
    return progress;
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<Meter>> meters_;
};

}  // namespace satin::dist
