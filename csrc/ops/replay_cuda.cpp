#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>

#include "ops/replay.h"

namespace satin::ops {

struct Replay::Graph {
  at::cuda::CUDAGraph graph;
};

Replay::Replay(std::function<void()> work, at::Device device) : work_(std::move(work)), device_(device) {}
Replay::~Replay() = default;

void Replay::run() {
  const c10::cuda::OptionalCUDAGuard guard(device_.is_cuda() ? std::optional(device_) : std::nullopt);
  if (device_.is_cpu() || !std::exchange(has_run_, true)) return work_();
  if (!graph_) {
    c10::cuda::device_synchronize();
    graph_ = std::make_unique<Graph>();
    const c10::cuda::CUDAStreamGuard side(c10::cuda::getStreamFromPool());  // the default stream cannot be recorded
    graph_->graph.capture_begin();
    work_();
    graph_->graph.capture_end();
  }
  graph_->graph.replay();
}

}  // namespace satin::ops
