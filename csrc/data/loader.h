// Batches read ahead by a background thread, so that a training step never waits for the disk.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "data/dataset.h"
#include "data/step_share.h"

namespace satin::data {

class Loader {
 public:
  struct Options {
    StepShare share;          ///< of each step's samples; the sequence of samples does not depend on it
    bool pin_memory = false;  ///< needs CUDA
    size_t num_ahead = 4;     ///< batches prepared ahead
  };
  struct Item {
    Batch batch;
    Position position;  ///< after this batch's step (alone: after this batch): resume from here to get the next one
  };

  /// `dataset` must outlive the loader. Errors: UserError when `start` belongs to other data.
  Loader(const Dataset& dataset, const Options& options, const Position& start = {});
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next micro-batch; where this process has none, a sequence of which nothing is scored. Waits when it is not
  /// ready. Data never end: sources start their next epoch. An error of the background thread is thrown here (again at
  /// each call), after the batches before it.
  Item next();

 private:
  void work();
  void read_step();
  void push(Item item);

  const Dataset& dataset_;
  Options options_;
  Sampler sampler_;  // the thread's own
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> ready_;
  std::exception_ptr error_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace satin::data
