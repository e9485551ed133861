#include "bench/timer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>

namespace satin::bench {
namespace {

std::vector<double> time_cpu(int num_copies, const Call& call) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  double total = 0;
  for (int i = 0; i < 3 + num_copies || (total < 3e5 && i < 1000); ++i) {
    const auto start = Clock::now();
    const auto made = call(i);
    const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    if (i == 0) continue;  // first touch of the memory
    times.push_back(us);
    total += us;
  }
  return times;
}

}  // namespace

Measurement summarise(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  Measurement result;
  result.us = times[times.size() / 2];
  result.least_us = times.front();
  result.most_us = times.back();
  return result;
}

size_t copies_beyond_caches(at::Device device, double bytes) {
  return device.is_cuda() ? 1 + static_cast<size_t>(kBytesBeyondCaches / bytes) : 1;
}

Measurement time_calls(at::Device device, int num_copies, const Call& call) {
  return summarise(device.is_cuda() ? time_cuda_graph(device, num_copies, call) : time_cpu(num_copies, call));
}

double copy_bandwidth(at::Device device) {
  const int64_t bytes = device.is_cuda() ? int64_t{1} << 30 : int64_t{1} << 28;
  const auto options = at::TensorOptions().device(device).dtype(at::kByte);
  const at::Tensor from = at::zeros({bytes}, options), to = at::zeros({bytes}, options);
  // The faster of the runtime's copy and a kernel's: neither is always best.
  const Measurement copy = time_calls(device, 1, [&](int) {
    to.copy_(from);
    return std::vector<at::Tensor>{};
  });
  at::Tensor out = to.view(at::kFloat);
  const Measurement kernel = time_calls(device, 1, [&](int) {
    at::neg_out(out, from.view(at::kFloat));
    return std::vector<at::Tensor>{};
  });
  return 2.0 * static_cast<double>(bytes) / (std::min(copy.us, kernel.us) * 1e-6);
}

}  // namespace satin::bench
