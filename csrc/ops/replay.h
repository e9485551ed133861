// The same launches again and again, without the host: a CUDA graph. replay_cuda.cpp, or no_replay.cpp without CUDA.
#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace satin::ops {

/// Work on a device whose tensors stay where they are from one run to the next. CUDA: the first run is plain (what it
/// sets up may wait for the device), the second is recorded, and from then on the record is launched: `work` must not
/// depend on the host, and what it makes lies in the same memory each time. CPU: `work`.
class Replay {
 public:
  Replay(std::function<void()> work, at::Device device);
  ~Replay();
  Replay(const Replay&) = delete;
  Replay& operator=(const Replay&) = delete;

  /// On the current stream.
  void run();

 private:
  struct Graph;

  std::function<void()> work_;
  at::Device device_;
  bool has_run_ = false;
  std::unique_ptr<Graph> graph_;
};

}  // namespace satin::ops
