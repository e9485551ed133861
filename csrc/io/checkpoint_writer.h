// Checkpoints written while training goes on.
#pragma once
#include <filesystem>
#include <future>
#include <memory>
#include <vector>

#include "io/checkpoint.h"

namespace satin::io {

/// save() copies what this rank has to write to the host and returns; a thread writes it as save_checkpoint does. One
/// at a time: a second save waits for the first, so host memory is that of one copy (kept for the next).
/// What went wrong in the thread is thrown, on every rank, by the next call. All calls but the destructor are
/// collective.
class AsyncCheckpointWriter {
 public:
  AsyncCheckpointWriter(std::filesystem::path run_directory, int64_t keep,
                        std::shared_ptr<dist::Communicator> ranks = dist::Communicator::alone());
  /// Waits. An error that no call has thrown is logged.
  ~AsyncCheckpointWriter();
  AsyncCheckpointWriter(const AsyncCheckpointWriter&) = delete;
  AsyncCheckpointWriter& operator=(const AsyncCheckpointWriter&) = delete;

  /// The tensors may change as soon as it returns.
  void save(const CheckpointContents& contents);
  /// Until the last save is complete on the disk.
  void wait();

 private:
  std::filesystem::path run_directory_;
  int64_t keep_;
  std::shared_ptr<dist::Communicator> ranks_, thread_ranks_;
  std::vector<at::Tensor> host_copies_;
  std::future<void> pending_;
};

}  // namespace satin::io
