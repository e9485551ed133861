#include "export/in_parallel.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <numeric>

namespace satin::exporting {

void in_parallel(const std::vector<int64_t>& sizes, const std::function<void(size_t)>& task, const std::string& phase,
                 const Progress& progress) {
  std::vector<size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return sizes[a] > sizes[b]; });
  const auto total = static_cast<double>(std::max<int64_t>(1, std::accumulate(sizes.begin(), sizes.end(), int64_t{0})));
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  int64_t done = 0;
  // One long piece a thread; operators within it see that they are in a parallel region and stay on their thread.
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const at::NoGradGuard no_grad;
    try {
      for (size_t i; (i = next++) < order.size();) {
        task(order[i]);
        const std::lock_guard lock(mutex);
        done += sizes[order[i]];
        if (progress) progress(phase, static_cast<double>(done) / total);
      }
    } catch (...) {
      next = order.size();
      throw;
    }
  });
}

}  // namespace satin::exporting
