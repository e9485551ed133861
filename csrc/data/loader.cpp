#include "data/loader.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace satin::data {

Loader::Loader(const Dataset& dataset, const Options& options, const Position& start)
    : dataset_(dataset), options_(options), sampler_(dataset.sampler()) {
  SATIN_CHECK(options_.share.own().count > 0 && options_.share.micro_batch_size > 0 && options_.num_ahead > 0);
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

void Loader::push(Item item) {
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stop_ || ready_.size() < options_.num_ahead; });
    ready_.push_back(std::move(item));
  }
  changed_.notify_all();
}

void Loader::read_step() {
  const StepShare& share = options_.share;
  std::vector<Sample> samples;
  std::vector<Position> after;
  for (int64_t i = 0; i < share.samples_per_step; ++i) {
    samples.push_back(sampler_.next());
    after.push_back(sampler_.position());
  }
  for (int64_t i = 0; i < share.num_micro_batches() && !stop_; ++i) {
    const auto [first, count] = share.micro_batch(i);
    const auto begin = samples.begin() + (count > 0 ? first : 0);
    Item item{dataset_.read({begin, begin + std::max<int64_t>(count, 1)}, options_.pin_memory),
              share.size == 1 ? after[first + count - 1] : after.back()};
    item.batch.idle = count == 0;
    if (item.batch.idle) item.batch.loss_mask.zero_();
    push(std::move(item));
  }
}

void Loader::work() {
  try {
    while (!stop_) read_step();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
  }
  changed_.notify_all();
}

}  // namespace satin::data
