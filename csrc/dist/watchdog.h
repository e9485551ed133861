// The failure bound: when a rank of the job is lost, hangs or fails, every other rank ends within timeout_s and says
// which rank it was, on which host, at which step, and why.
//
// A thread of each process writes a heartbeat into the job's store (over a connection of its own) and reads those of
// all others; a second one watches that the store answers. Who finds a rank lost publishes that as the job's verdict,
// so that all print the same reason, and ends its process with _exit(1): nothing stays behind, on the host or the GPU,
// whatever the main thread is stuck in.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "dist/communicator.h"
#include "dist/launch.h"

namespace satin::dist {

class Watchdog {
 public:
  /// Called by every rank after join(). `group`: its collectives are watched. A job of one rank is not watched. Throws
  /// PeerError when the others do not come.
  Watchdog(const Launch& launch, std::shared_ptr<Communicator> group, double timeout_s);
  /// Says goodbye: this rank is no longer watched. The rank that serves the store stays until all have left.
  ~Watchdog();

  /// The step that this rank is at, for the messages.
  void step(int64_t step);
  /// From here to resume() others may wait for this rank as long as it takes; that its process lives is still watched.
  /// Pauses nest.
  void pause();
  void resume();

  /// Tells the others that this rank ends, and why; they end with that reason. Returns soon, whatever the network does.
  void fail(const std::string& reason);
  /// After a PeerError: waits until it is known which rank was lost, prints that and ends the process.
  [[noreturn]] void lost(const std::string& error);
  /// Runs `work`: PeerError goes to lost(), InterruptedError passes, what else it throws goes to fail() and passes.
  /// Objects whose destructors may wait for other ranks must outlive it: the others are told after `work` has unwound.
  void guard(const std::function<void()>& work);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;  ///< null: a job of one rank
};

/// A scope that takes as long as it takes: Watchdog::pause() and resume(), where there is one.
class Unbounded {
 public:
  explicit Unbounded(Watchdog* watchdog) : watchdog_(watchdog) {
    if (watchdog_) watchdog_->pause();
  }
  ~Unbounded() {
    if (watchdog_) watchdog_->resume();
  }
  Unbounded(const Unbounded&) = delete;
  Unbounded& operator=(const Unbounded&) = delete;

 private:
  Watchdog* watchdog_;
};

}  // namespace satin::dist
