#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

#include "bench/timer.h"

namespace satin::bench {
namespace {

double elapsed_us(const std::function<void()>& work) {
  at::cuda::CUDAEvent start(cudaEventDefault), stop(cudaEventDefault);
  start.record();
  work();
  stop.record();
  stop.synchronize();
  return 1e3 * static_cast<double>(start.elapsed_time(stop));
}

}  // namespace

std::vector<double> time_cuda_graph(at::Device device, int num_copies, const Call& call) {
  const c10::cuda::CUDAGuard guard(device);
  const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
  call(0);
  c10::cuda::device_synchronize();
  const double once = elapsed_us([&] { call(1); });
  const int num_calls = once > 2000 ? 5 : std::max(20, num_copies);  // fewer would find the first copies in a cache
  c10::cuda::CUDACachingAllocator::emptyCache();                     // the graph takes memory of its own
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  std::vector<std::vector<at::Tensor>> made(static_cast<size_t>(num_copies));
  for (int i = 0; i < num_calls; ++i) made[static_cast<size_t>(i % num_copies)] = call(i);
  graph.capture_end();
  // Queued one behind the other: only the first, which is not counted, waits for its launch by the host.
  constexpr size_t kReplays = 11;
  std::vector<at::cuda::CUDAEvent> marks;
  while (marks.size() < kReplays + 1) {
    graph.replay();
    marks.emplace_back(cudaEventDefault).record();
  }
  marks.back().synchronize();
  std::vector<double> times;
  for (size_t i = 0; i < kReplays; ++i) times.push_back(1e3 * marks[i].elapsed_time(marks[i + 1]) / num_calls);
  return times;
}

}  // namespace satin::bench
