#include "data/loader.h"

#include <ATen/core/Tensor.h>

#include "core/error.h"

namespace satin::data {

Loader::Loader(const Dataset& dataset, const Options& options, const Position& start)
    : dataset_(dataset), options_(options), sampler_(dataset.sampler()) {
  SATIN_CHECK(options_.batch_size > 0 && options_.num_ahead > 0);
  sampler_.seek(start);
  thread_ = std::thread([this] { work(); });
}

Loader::~Loader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

Loader::Item Loader::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !ready_.empty() || error_; });
  if (ready_.empty()) std::rethrow_exception(error_);
  Item item = std::move(ready_.front());
  ready_.pop_front();
  lock.unlock();
  changed_.notify_all();
  return item;
}

void Loader::work() {
  try {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || ready_.size() < options_.num_ahead; });
        if (stop_) return;
      }
      std::vector<Sample> samples;
      for (int64_t b = 0; b < options_.batch_size; ++b) samples.push_back(sampler_.next());
      Item item{dataset_.read(samples, options_.pin_memory), sampler_.position()};
      {
        const std::lock_guard lock(mutex_);
        ready_.push_back(std::move(item));
      }
      changed_.notify_all();
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
  }
  changed_.notify_all();
}

}  // namespace satin::data
